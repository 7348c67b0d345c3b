"""The generated streets behind the readers' interface, with an optional cache on disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from zoo_sparse_refine.streets import CLASSES, IGNORE, PALETTE


class Streets:
    """Scenes ``start`` to ``start + count`` of a seed, as a dataset of (image, labels).

    Args:
        seed, start, count: Which scenes.
        height, width: Pixels.
        folder: Where scenes are kept once made (8 MB each at 1024x2048; read by memory mapping).  Without it every access draws the scene again (about
            0.4 s).

    >>> scenes = Streets(seed=0, count=2, height=64, width=128)
    >>> image, labels = scenes[1]
    >>> image.shape, labels.dtype
    ((64, 128, 3), dtype('uint8'))
    """

    classes = CLASSES
    palette = PALETTE
    ignore_index = IGNORE

    def __init__(
        self, seed: int = 0, count: int = 100, *, start: int = 0, height: int = 1024, width: int = 2048, folder: str | os.PathLike[str] | None = None
    ) -> None:
        self.seed, self.start, self.count, self.height, self.width = seed, start, count, height, width
        self.folder = Path(folder) / f"streets-{seed}-{height}x{width}" if folder else None

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        """``seed-number``."""
        return f"{self.seed}-{self.start + index:06d}"

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 [H, W, 3] (RGB) and labels uint8 [H, W]."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        both = self._stored(self.start + index)
        return both[..., :3], both[..., 3]

    def _stored(self, number: int) -> np.ndarray:
        from zoo_sparse_refine.streets import make_scene

        path = self.folder / f"{number:06d}.npy" if self.folder else None
        if path is not None and path.exists():
            return np.load(path, mmap_mode="r")
        scene = make_scene(self.seed, number, height=self.height, width=self.width)
        both = np.concatenate([scene.image, scene.labels[..., None]], axis=2)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}.part")
            with part.open("wb") as file:
                np.save(file, both)
            part.replace(path)
        return both
