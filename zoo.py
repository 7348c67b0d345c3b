"""The front door of the zoo: ``import zoo; zoo.load("sana-0.6b")``.  Everything is loaded when first used."""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {"load": "zoo_core.loading", "hookimpl": "zoo_core.hookspecs"}
__all__ = sorted(_LAZY)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")
