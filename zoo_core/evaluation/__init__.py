"""Evaluation: run, score, aggregate, compare, report.  Names are loaded when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo_core.evaluation.compare import compare_results as compare_results
    from zoo_core.evaluation.report import write_report as write_report
    from zoo_core.evaluation.results import read_result as read_result
    from zoo_core.evaluation.results import write_json as write_json
    from zoo_core.evaluation.runner import item_seed as item_seed
    from zoo_core.evaluation.runner import repeat as repeat
    from zoo_core.evaluation.runner import run_evaluation as run_evaluation
    from zoo_core.evaluation.statistics import bootstrap as bootstrap

_LAZY = {
    "compare_results": "compare",
    "write_report": "report",
    "read_result": "results",
    "write_json": "results",
    "item_seed": "runner",
    "repeat": "runner",
    "run_evaluation": "runner",
    "bootstrap": "statistics",
}
__all__ = sorted(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
