"""Generated high-resolution street scenes with labels.

``make_scene(seed, index)`` gives a picture and its label map; ``python -m zoo_sparse_refine.streets --output street.png`` writes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo_sparse_refine.streets.classes import CLASSES, IGNORE, PALETTE, THIN

if TYPE_CHECKING:
    from zoo_sparse_refine.streets.scene import Scene as Scene
    from zoo_sparse_refine.streets.scene import make_scene as make_scene

__all__ = ["CLASSES", "IGNORE", "PALETTE", "THIN", "Scene", "make_scene"]


def __getattr__(name: str) -> Any:
    if name in ("Scene", "make_scene"):
        from zoo_sparse_refine.streets import scene

        return getattr(scene, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
