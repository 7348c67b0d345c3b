"""For plugin authors: the conformance kit and fault-injection fixtures.

Three doors to the same checks: ``zoo conformance PLUGIN``, ``pytest --zoo-plugin PLUGIN`` and

    from zoo_core.testing import check_plugin
    results = check_plugin("my-paper", expected_failures={"segmenter.batch": "batch norm in training mode, on purpose"})

Nothing heavy is imported here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo_core.testing.results import CheckResult, Skipped, badge, to_json
    from zoo_core.testing.runner import check_plugin

_LAZY = {
    "CheckResult": "zoo_core.testing.results",
    "Skipped": "zoo_core.testing.results",
    "badge": "zoo_core.testing.results",
    "to_json": "zoo_core.testing.results",
    "check_plugin": "zoo_core.testing.runner",
}
__all__ = ["CheckResult", "Skipped", "badge", "check_plugin", "to_json"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
