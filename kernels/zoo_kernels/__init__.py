"""Numeric operations for efficient-AI models: a reference in plain PyTorch, faster implementations, one choice at build time.

    from zoo_kernels import select, ops
    attend = select("linear_attention", device="cpu", dtype=torch.float32)
    ops.linear_attention.reference(q, k, v, eps=1e-15)

Names are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo_kernels import ops as ops
    from zoo_kernels.errors import KernelError as KernelError
    from zoo_kernels.selection import describe as describe
    from zoo_kernels.selection import explain as explain
    from zoo_kernels.selection import select as select
    from zoo_kernels.selection import use as use
    from zoo_kernels.spec import Choice as Choice
    from zoo_kernels.spec import KernelImpl as KernelImpl
    from zoo_kernels.spec import OpSpec as OpSpec
    from zoo_kernels.spec import Query as Query

__version__ = "0.1.0"
_LAZY = {
    "KernelError": "errors",
    "describe": "selection",
    "explain": "selection",
    "select": "selection",
    "use": "selection",
    "Choice": "spec",
    "KernelImpl": "spec",
    "OpSpec": "spec",
    "Query": "spec",
}
__all__ = [*sorted(_LAZY), "ops"]


def __getattr__(name: str) -> Any:
    if name == "ops":
        return importlib.import_module("zoo_kernels.ops")
    if name in _LAZY:
        value = getattr(importlib.import_module(f"zoo_kernels.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'zoo_kernels' has no attribute {name!r}")
