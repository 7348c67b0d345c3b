"""Pytest option ``--zoo-plugin NAME``: every conformance check of an installed plugin becomes a test item.

Loaded by pytest through the entry point ``pytest11`` in every run, so nothing of the kit is imported unless the option is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from zoo_core.testing.checks import Check
    from zoo_core.testing.results import CheckResult
    from zoo_core.testing.subject import Subject


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("zoo", "model zoo")
    group.addoption("--zoo-plugin", action="append", default=[], metavar="NAME", help="run the zoo's conformance kit on this installed plugin (repeatable)")
    group.addoption("--zoo-check", action="append", default=[], metavar="PATTERN", help="only the conformance checks whose names match, e.g. 'metadata.*'")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    names = config.getoption("--zoo-plugin")
    if not names:
        return
    import fnmatch

    from zoo_core.errors import ZooError
    from zoo_core.testing.checks import all_checks
    from zoo_core.testing.subject import Subject

    patterns = config.getoption("--zoo-check")
    for name in names:
        try:
            subject = Subject(name)
        except ZooError as error:
            raise pytest.UsageError(str(error)) from None
        collector = PluginCollector.from_parent(session, name=f"zoo-plugin:{subject.name}", subject=subject)
        for check in all_checks():
            if not patterns or any(fnmatch.fnmatch(check.name, pattern) for pattern in patterns):
                items.append(CheckItem.from_parent(collector, name=check.name, check=check))


class PluginCollector(pytest.Collector):
    """Holds the subject that all items of one plugin share."""

    def __init__(self, *, subject: Subject, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.subject = subject
        self.failed: list[str] = []

    def collect(self) -> Iterator[pytest.Item]:
        return iter(())


class CheckItem(pytest.Item):
    """One check, on all things it applies to."""

    parent: PluginCollector

    def __init__(self, *, check: Check, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.check = check

    def runtest(self) -> None:
        from zoo_core.testing.runner import declarations, run_one

        results = list(run_one(self.parent.subject, self.check, self.parent.failed, declarations(self.parent.subject)))
        wrong = [result for result in results if not result.ok]
        if wrong:
            self.parent.failed.append(self.check.name)
            raise ConformanceFailure(wrong)
        expected = [result for result in results if result.status == "expected-failure"]
        if expected:
            pytest.xfail("; ".join(result.message for result in expected))
        if all(result.status == "skipped" for result in results):
            pytest.skip("; ".join(dict.fromkeys(result.message for result in results)) or "nothing to check")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:  # type: ignore[override]
        if isinstance(excinfo.value, ConformanceFailure):
            lines = [f"{self.check.name}: {self.check.summary}"]
            return "\n".join(lines + [f"  {result.id}: {result.message}" for result in excinfo.value.results])
        return str(super().repr_failure(excinfo, style))

    def reportinfo(self) -> tuple[str, int | None, str]:
        return self.parent.name, None, f"{self.parent.name} {self.check.name}"


class ConformanceFailure(Exception):
    """Carries the results that are not as they should be."""

    def __init__(self, results: list[CheckResult]) -> None:
        super().__init__("; ".join(f"{result.id}: {result.message}" for result in results))
        self.results = results
