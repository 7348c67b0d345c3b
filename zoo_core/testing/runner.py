"""Running the checks on one plugin."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Iterator, Mapping, Sequence

from zoo_core.errors import InputError
from zoo_core.testing.checks import Check, all_checks
from zoo_core.testing.results import CheckResult, Skipped
from zoo_core.testing.subject import Subject


def check_plugin(name: str, expected_failures: Mapping[str, str] | None = None, *, only: Sequence[str] = ()) -> list[CheckResult]:
    """Run the conformance kit on an installed plugin.

    Args:
        name: Plugin, distribution or package name.
        expected_failures: Check (``"cache.crop"``) or check on one item (``"cache.crop[streaming]"``) -> reason.  Added to what the plugin itself declares by
            the hook ``zoo_conformance``.  A declared check that passes is reported as ``unexpected-pass``.
        only: Patterns of check names (``"metadata.*"``); empty means all.

    Returns:
        One result per check and item; ``all(result.ok for result in results)`` is the verdict.

    Raises:
        PluginNotInstalledError: No such plugin in this environment.
        InputError: ``expected_failures`` or ``only`` name a check that does not exist.
    """
    return list(run_checks(Subject(name), expected_failures, only=only))


def run_checks(subject: Subject, expected_failures: Mapping[str, str] | None = None, *, only: Sequence[str] = ()) -> Iterator[CheckResult]:
    """Like :func:`check_plugin`, one result at a time."""
    checks = all_checks()
    known = [check.name for check in checks]
    for pattern in only:
        if not fnmatch.filter(known, pattern):
            raise InputError(f"no conformance check matches {pattern!r}", fix=f"one of {', '.join(known)}")
    declared = {**declarations(subject), **(expected_failures or {})}
    for declaration in declared:
        if declaration.partition("[")[0] not in known:
            raise InputError(f"expected failure {declaration!r} names no conformance check", fix=f"one of {', '.join(known)}")
    failed: list[str] = []
    for check in checks:
        if only and not any(fnmatch.fnmatch(check.name, pattern) for pattern in only):
            continue
        for result in run_one(subject, check, failed, declared):
            if result.status == "failed":
                failed.append(result.check)
            yield result


def declarations(subject: Subject) -> Mapping[str, str]:
    """Expected failures that the plugin declares; none when its hooks cannot be called (another check reports that)."""
    try:
        return subject.conformance.expected_failures
    except Exception:
        return {}


def run_one(subject: Subject, check: Check, failed: Sequence[str] = (), declared: Mapping[str, str] | None = None) -> Iterator[CheckResult]:
    """Run one check on all its items."""
    blocker = next((name for need in check.needs for name in failed if name == need or (need.endswith(".") and name.startswith(need))), None)
    if blocker:
        yield CheckResult(check.name, "", "skipped", f"needs {blocker}")
        return
    try:
        items = [""] if check.items is None else list(check.items(subject))
    except Skipped as reason:
        yield CheckResult(check.name, "", "skipped", str(reason))
        return
    except Exception:
        yield CheckResult(check.name, "", "skipped", "the things to check cannot be listed")
        return
    for item in items:
        yield _run_item(subject, check, item, declared or {})


def _run_item(subject: Subject, check: Check, item: str, declared: Mapping[str, str]) -> CheckResult:
    start = time.perf_counter()
    reason = declared.get(f"{check.name}[{item}]" if item else check.name, declared.get(check.name))
    try:
        remark = check.run(subject, item) if check.items else check.run(subject)
        status, message = "passed", remark or ""
    except Skipped as skipped:
        status, message = "skipped", str(skipped)
    except AssertionError as failure:
        status, message = "failed", str(failure) or "assertion failed"
    except Exception as failure:
        status, message = "failed", f"{type(failure).__name__}: {failure}"
    if reason is not None:
        if status == "failed":
            status, message = "expected-failure", f"{reason} ({message.splitlines()[0]})"
        elif status == "passed":
            status, message = "unexpected-pass", f"declared to fail: {reason}"
    return CheckResult(check.name, item, status, message, round(time.perf_counter() - start, 4))
