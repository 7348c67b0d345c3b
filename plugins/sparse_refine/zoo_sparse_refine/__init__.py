"""SparseRefine (arXiv 2407.19014) for the zoo: dense coarse prediction, sparse refinement of the uncertain pixels."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "Refiner": "zoo_sparse_refine.refiner",
    "RefinerConfig": "zoo_sparse_refine.config",
    "SparseRefineConfig": "zoo_sparse_refine.config",
    "SparseUNet": "zoo_sparse_refine.unet",
}
__all__ = sorted(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
