"""Core of the zoo: interfaces, registry, loading, evaluation, command line. It knows no paper.

Names are loaded when first used; importing this package imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo_core.hookspecs import hookimpl as hookimpl
    from zoo_core.loading import load as load

__version__ = "0.1.0"

_LAZY = {"hookimpl": "zoo_core.hookspecs", "load": "zoo_core.loading"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
