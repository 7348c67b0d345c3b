"""The points of every level of the U-Net and the maps between them, built once per picture and used by all convolutions of a level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from torch import Tensor
from zoo_kernels.operations.sparse_conv2d import maps

from zoo_core.errors import InputError


@dataclass
class Level:
    """One resolution.

    Attributes:
        coordinates: int32 [N, 3] = (image, row, column) in units of this level.
        size: Rows and columns that can hold points.
        near: int32 [N, 9], submanifold map.
        far: int32 [N, 9], the same seen from the inputs (for gradients).
        down: int32 [N_coarse, 9], map of the strided convolution to the next level; None on the deepest.
        up: int32 [N, 9], map of the transposed convolution back from it.
    """

    coordinates: Tensor
    size: tuple[int, int]
    near: Tensor
    far: Tensor
    down: Tensor | None = None
    up: Tensor | None = None

    @property
    def count(self) -> int:
        """N."""
        return self.coordinates.shape[0]


def build_pyramid(coordinates: Tensor, depth: int, *, size: tuple[int, int], images: int, bounds: str = "batch") -> list[Level]:
    """``depth`` levels over the given points.

    Args:
        coordinates: int32 [N, 3] = (image, row, column).
        size, images: Of the batch of pictures.
        bounds: See :class:`~zoo_sparse_refine.config.RefinerConfig`.

    Raises:
        InputError: Coordinates outside the pictures, or not [N, 3].
    """
    if coordinates.dim() != 2 or coordinates.shape[1] != 3:
        raise InputError(f"coordinates have the shape {tuple(coordinates.shape)}", fix="give int32 [N, 3] = (image, row, column)")
    levels: list[Level] = []
    rule = cast("Literal['batch', 'image', 'size']", bounds)
    for number in range(depth):
        points = maps.Points(coordinates, size, images)
        near = maps.submanifold_map(coordinates, points=points)
        level = Level(coordinates, size, near, near.flip(1))
        levels.append(level)
        if number + 1 < depth:
            coarse, level.down = maps.strided_map(coordinates, size, images, bounds=rule, points=points)
            level.up = maps.inverse_map(level.down, coordinates.shape[0])
            coordinates, size = coarse, maps.strided_size(size)
    return levels
