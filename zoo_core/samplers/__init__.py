"""Samplers of general use; each makes :class:`~zoo_core.interfaces.SamplingPlan` objects (see :mod:`zoo_core.interfaces.sampler`).

Names are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "FlowDPMSolver": "flow_dpm_solver",
    "FlowEuler": "flow_euler",
    "SCM": "scm",
    "DDPM": "ddpm",
    "shifted_sigmas": "flow_dpm_solver",
}
__all__ = sorted(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
