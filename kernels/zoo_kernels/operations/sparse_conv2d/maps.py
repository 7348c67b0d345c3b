"""Kernel maps of sparse 3 x 3 convolutions: which input point every tap of every output point reads.

Points are int32 [N, 3] = (image, row, column), each at most once, coordinates not negative.  A map is a table int32 [N_out, 9]: ``table[o, k]`` is the
input point under tap k of output o, -1 where there is none.  **Tap k = i + 3 j with i the row tap: rows run fastest** (the kernel order of TorchSparse for odd
kernels).  For dense weights: ``kernel.reshape(3, 3, C_in, C_out).permute(3, 2, 1, 0)`` is the conv2d weight [C_out, C_in, 3, 3].

Points are looked up in a grid with one cell per pixel of the batch (or, when that would be large, by binary search in their sorted numbers).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

TAPS = 9
CELLS = 1 << 26
"""Above so many pixels in a batch (256 MiB of int32), points are looked up by binary search."""
Bounds = Literal["batch", "image", "size"]


class Points:
    """Where the points are: :meth:`find` gives the index of the point at a place.

    Places are numbered row-major over pictures with a rim of one empty cell, so that a neighbour of a point has a number of its own also outside the picture.

    Args:
        coordinates: int [N, 3], (image, row, column), each inside the size.
        size: Rows and columns of the images; spares the search for the largest coordinates (and a wait for the GPU).
        images: Number of images; the same.
        cells: Largest grid; beyond it, places are found by binary search.

    Raises:
        ValueError: The coordinates are not integers [N, 3].
    """

    def __init__(self, coordinates: Tensor, size: tuple[int, int] | None = None, images: int | None = None, *, cells: int = CELLS) -> None:
        if coordinates.dim() != 2 or coordinates.shape[1] != 3 or coordinates.is_floating_point():
            raise ValueError(f"coordinates {tuple(coordinates.shape)} {coordinates.dtype} are not integers [N, 3] = (image, row, column)")
        if size is None or images is None:
            top = [int(v) for v in coordinates.amax(0)] if coordinates.shape[0] else [-1, -1, -1]
            size, images = size or (top[1] + 1, top[2] + 1), top[0] + 1 if images is None else images
        self.coordinates, self.size, self.images = coordinates, size, images
        self.keys = self.key(*coordinates.long().unbind(1))
        """int64 [N]: number of each point's place."""
        count = images * (size[0] + 2) * (size[1] + 2)
        self.grid: Tensor | None = None
        if count <= cells:
            self.grid = torch.full((count,), -1, dtype=torch.int32, device=coordinates.device)
            self.grid[self.keys] = torch.arange(coordinates.shape[0], dtype=torch.int32, device=coordinates.device)
        else:
            self.sorted, order = self.keys.sort()
            self.order = order.int()

    def key(self, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Number of a place, int64."""
        return ((image * (self.size[0] + 2) + row + 1) * (self.size[1] + 2)) + column + 1

    def find(self, keys: Tensor) -> Tensor:
        """int32 index of the point at each place (int64 [M]), -1 where there is none."""
        if self.grid is not None:
            return self.grid.index_select(0, keys)
        if not self.order.numel():
            return torch.full_like(keys, -1, dtype=torch.int32)
        place = torch.searchsorted(self.sorted, keys).clamp_max_(self.sorted.shape[0] - 1)
        return torch.where(self.sorted[place] == keys, self.order[place], -1)

    def table(self, corner: Tensor) -> Tensor:
        """int32 [M, 9]: the points in the 3 x 3 places whose first (upper left) one has the number ``corner`` [M]."""
        out = torch.empty((TAPS, corner.shape[0]), dtype=torch.int32, device=corner.device)
        for tap in range(TAPS):
            out[tap] = self.find(corner + (tap % 3 * (self.size[1] + 2) + tap // 3))
        return out.T.contiguous()


def submanifold_map(coordinates: Tensor, size: tuple[int, int] | None = None, images: int | None = None, *, points: Points | None = None) -> Tensor:
    """Map of a 3 x 3 convolution whose outputs are its inputs: out[p] = sum_k W[k] x[p + (i - 1, j - 1)] over the neighbours that are points of the same image.

    Args:
        coordinates: int32 [N, 3] = (image, row, column), in any order.
        size, images: See :class:`Points`; ``points`` when it is built already.

    Returns:
        int32 [N, 9], the same turned round is ``table.flip(1)``.

    >>> submanifold_map(torch.tensor([[0, 0, 0], [0, 1, 0], [0, 5, 5]], dtype=torch.int32)).tolist()
    [[-1, -1, -1, -1, 0, 1, -1, -1, -1], [-1, -1, -1, 0, 1, -1, -1, -1, -1], [-1, -1, -1, -1, 2, -1, -1, -1, -1]]
    """
    points = Points(coordinates, size, images) if points is None else points
    return points.table(points.keys - (points.size[1] + 3))


def strided_map(
    coordinates: Tensor,
    size: tuple[int, int] | None = None,
    images: int | None = None,
    *,
    bounds: Bounds = "batch",
    points: Points | None = None,
) -> tuple[Tensor, Tensor]:
    """Points and map of a 3 x 3 convolution with stride 2 and no padding: out[o] = sum_k W[k] x[2 o + (i, j)].

    An output exists where at least one of its nine inputs does and, on each axis, o >= 0 and o <= (m - 2) // 2.

    Args:
        coordinates: int32 [N, 3] = (image, row, column), in any order.
        bounds: What m is.  ``"batch"``: the largest coordinate of any point in the batch (TorchSparse's rule, needed for its checkpoints; the result for one
            image depends on the others).  ``"image"``: of the image's own points.  ``"size"``: ``size - 1``, the last row or column of the picture.
        size, images: See :class:`Points`; ``bounds="size"`` needs the size.

    Returns:
        (coordinates int32 [M, 3] in units of the coarse level, sorted row-major; table int32 [M, 9]).

    Raises:
        ValueError: Unknown bounds, or ``"size"`` without a size.
    """
    if bounds not in ("batch", "image", "size"):
        raise ValueError(f"bounds {bounds!r} are unknown; choose from batch, image, size")
    if bounds == "size" and size is None:
        raise ValueError("bounds 'size' need the size of the pictures")
    points = Points(coordinates, size, images) if points is None else points
    coarse = _coarse(points, coordinates.long(), bounds)
    image, row, column = coarse.unbind(1)
    return coarse.int().contiguous(), points.table(points.key(image, 2 * row, 2 * column))


def _coarse(points: Points, place: Tensor, bounds: Bounds) -> Tensor:
    """int64 [M, 3]: the outputs of the strided convolution, sorted."""
    (rows, columns), images = points.size, points.images
    if not place.shape[0]:
        return place
    if bounds == "size":
        last = place.new_tensor([(rows - 3) // 2, (columns - 3) // 2]).expand(images, 2)
    elif bounds == "batch":
        last = ((place[:, 1:].amax(0) - 2) // 2).expand(images, 2)
    else:
        index = place[:, :1].expand(-1, 2)
        last = (place.new_full((images, 2), -1).scatter_reduce(0, index, place[:, 1:], "amax") - 2) // 2
    # a point with an even coordinate lies under tap 0 of one output and tap 2 of the one before; an odd one under tap 1 of one output
    high, wide = (rows + 1) // 2, (columns + 1) // 2
    upper = place[:, 1:] // 2
    lower = upper - (place[:, 1:] % 2 == 0).long()
    limit = last[place[:, 0]]
    found = []
    for row in (upper[:, 0], lower[:, 0]):
        for column in (upper[:, 1], lower[:, 1]):
            inside = (row >= 0) & (row <= limit[:, 0]) & (column >= 0) & (column <= limit[:, 1])
            found.append(torch.where(inside, (place[:, 0] * high + row) * wide + column, images * high * wide))
    keys, cells = torch.cat(found), images * high * wide
    if points.grid is not None:
        marked = torch.zeros(cells + 1, dtype=torch.bool, device=place.device)
        marked[keys] = True
        keys = marked[:cells].nonzero()[:, 0]
    else:
        keys = torch.unique(keys)
        keys = keys[keys < cells]
    return torch.stack((keys // (high * wide), keys // wide % high, keys % wide), 1)


def strided_size(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the coarse level of ``strided_map(bounds="size")``.

    >>> strided_size((18, 25))
    (8, 12)
    """
    return max(0, (size[0] - 1) // 2), max(0, (size[1] - 1) // 2)


def transpose_map(table: Tensor, inputs: int) -> Tensor:
    """The map read from the other side: int32 [inputs, K] with ``out[table[o, k], k] = o``, -1 elsewhere.

    Args:
        table: int [N_out, K]; no column holds an index twice.
        inputs: N_in, the points that ``table`` refers to.

    >>> transpose_map(torch.tensor([[0, 2], [-1, 0]]), 3).tolist()
    [[0, 1], [-1, -1], [-1, 0]]
    """
    count, width = table.shape
    out = torch.full((inputs + 1, width), -1, dtype=torch.int32, device=table.device)
    source = torch.arange(count, dtype=torch.int32, device=table.device)[:, None].expand(-1, width)
    out.scatter_(0, torch.where(table >= 0, table, inputs).long(), source)
    return out[:inputs]


def inverse_map(table: Tensor, inputs: int) -> Tensor:
    """Map of the transposed convolution that undoes a strided one: out[p] = sum of W[k] x[o] over the (o, k) with p = 2 o + (i, j), on the fine points.

    Args:
        table: Of :func:`strided_map`, int32 [M, 9].
        inputs: Fine points.

    Returns:
        int32 [inputs, 9]; points that no output covers have only -1 and get 0.
    """
    return transpose_map(table, inputs)
