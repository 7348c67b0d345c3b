"""Outcomes of conformance checks and how they are shown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

KIT_VERSION = "0.1"
"""Changes when a check is added, removed or judged differently."""

STATUSES = ("passed", "failed", "skipped", "expected-failure", "unexpected-pass")


class Skipped(Exception):
    """A check does not apply; the text says why."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Outcome of one check on one thing.

    Attributes:
        check: Name of the check, ``"group.what"``.
        item: The model, cache, sampler... it was run on; empty for checks on the plugin as a whole.
        status: One of :data:`STATUSES`.
        message: Why it failed or was skipped; a remark when it passed.
        seconds: Wall time.
    """

    check: str
    item: str = ""
    status: str = "passed"
    message: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the result needs no attention (an unexpected pass does: the declaration is out of date)."""
        return self.status in ("passed", "skipped", "expected-failure")

    @property
    def id(self) -> str:
        """``check`` or ``check[item]``."""
        return f"{self.check}[{self.item}]" if self.item else self.check


def counts(results: Sequence[CheckResult]) -> dict[str, int]:
    """Status -> number, all statuses present."""
    found = Counter(result.status for result in results)
    return {status: found[status] for status in STATUSES}


def to_json(plugin: str, results: Sequence[CheckResult]) -> str:
    """One JSON document: schema, plugin, API and kit version, counts, results."""
    from zoo_core.specs import API_VERSION

    document = {
        "schema": 1,
        "plugin": plugin,
        "api": API_VERSION,
        "kit": KIT_VERSION,
        "passed": all(result.ok for result in results),
        "counts": counts(results),
        "results": [asdict(result) for result in results],
    }
    return json.dumps(document, indent=1)


def badge(plugin: str, results: Sequence[CheckResult]) -> str:
    """A short Markdown block for the plugin's README.

    >>> print(badge("my-paper", [CheckResult("metadata.names"), CheckResult("cache.crop", "full", "expected-failure", "append-only on purpose")]))
    **Conformance** `my-paper`: API 1, kit 0.1, 1 of 2 checks passed, 1 declared, 0 not applicable
    <BLANKLINE>
    Declared: `cache.crop` (append-only on purpose)
    """
    from zoo_core.specs import API_VERSION

    number = counts(results)
    run = sum(number.values()) - number["skipped"]
    head = f"**Conformance** `{plugin}`: API {API_VERSION}, kit {KIT_VERSION}, {number['passed']} of {run} checks passed"
    lines = [f"{head}, {number['expected-failure']} declared, {number['skipped']} not applicable"]
    for status, title in (("failed", "Failed"), ("unexpected-pass", "Declared to fail, but passed"), ("expected-failure", "Declared")):
        found = [(result.check, result.message.splitlines()[0] if result.message else "") for result in results if result.status == status]
        if found:
            lines += ["", f"{title}: " + "; ".join(f"`{check}` ({why})" for check, why in dict.fromkeys(found))]
    return "\n".join(lines)
