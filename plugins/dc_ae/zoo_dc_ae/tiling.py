"""Encoding and decoding in tiles: bounded memory for large pictures.

Three ways:

* ``"exact"``: only the stages without attention are tiled (:mod:`zoo_dc_ae.exact`); the result is the untiled one.
* ``"window"``: all tiles have the full size, are spread evenly so that the last one ends at the border, overlap widely, and are added up under a
  window that rises linearly from the tile's edge and is normalised by its own sum.  Nothing is blended twice and there is no small tile at the border.
* ``"upstream"``: what ``AutoencoderDC.enable_tiling`` of diffusers computes, bit for bit: tiles at multiples of the stride, smaller ones at the right and
  bottom, cross-faded first with the tile above, then with the one to the left, in place.

In the last two the attention of the deep stages sees one tile only, so the result is close to the untiled one, not equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from zoo_core.errors import InputError

Coder = Callable[[torch.Tensor], torch.Tensor]
MODES = ("auto", "off", "exact", "window", "upstream")


@dataclass(frozen=True)
class Tiles:
    """Size and spacing in picture pixels (height, width).

    >>> Tiles.of(512, None, 32, "window").stride, Tiles.of(512, None, 32, "upstream").stride
    ((384, 384), (448, 448))
    """

    size: tuple[int, int]
    stride: tuple[int, int]

    @classmethod
    def of(cls, size: int | tuple[int, int], stride: int | tuple[int, int] | None, ratio: int, mode: str) -> Tiles:
        """Fill in the default stride (3/4 of the size for ``"window"``, 7/8 of it for ``"upstream"``) and check.

        Raises:
            InputError: The stride is larger than the tile, or (``"window"``) a number is not a multiple of ``ratio``.
        """
        pair = (size, size) if isinstance(size, int) else tuple(size)
        if stride is None:
            stride = tuple(max(ratio, (side * 3 // 4 if mode != "upstream" else side * 7 // 8) // ratio * ratio) for side in pair)
        steps = (stride, stride) if isinstance(stride, int) else tuple(stride)
        for side, step in zip(pair, steps):
            if not 0 < step <= side or side < ratio or step < ratio:
                raise InputError(f"tile of {side} pixels with stride {step}", fix=f"give {ratio} <= stride <= tile")
            if mode != "upstream" and (side % ratio or step % ratio):
                raise InputError(f"tile of {side} pixels with stride {step}", fix=f"give multiples of the spatial ratio {ratio}")
        return cls((pair[0], pair[1]), (steps[0], steps[1]))


# -- window-weighted accumulation --------------------------------------------------------------------------------------------


def tile_starts(length: int, tile: int, stride: int) -> list[int]:
    """Evenly spread starts; neighbours overlap by at least ``tile - stride`` and the last tile ends at ``length``.

    >>> tile_starts(128, 16, 8)[:3], tile_starts(20, 16, 8), tile_starts(9, 16, 8)
    ([0, 8, 16], [0, 4], [0])
    """
    if length <= tile:
        return [0]
    count = math.ceil((length - tile) / stride) + 1
    return [round(index * (length - tile) / (count - 1)) for index in range(count)]


def _windows(length: int, tile: int, starts: list[int], scale: int, ramp: int) -> list[torch.Tensor]:
    """Weight of every tile at each of its output positions along one axis; the weights at a position add up to 1 (float32)."""
    tile = min(tile, length)
    position = torch.arange(tile * scale, dtype=torch.float64) + 0.5
    rise = (position / max(1, ramp * scale)).clamp(max=1.0)
    window = torch.minimum(rise, rise.flip(0))
    total = torch.zeros(length * scale, dtype=torch.float64)
    for start in starts:
        total[start * scale : (start + tile) * scale] += window
    return [(window / total[start * scale : (start + tile) * scale]).float() for start in starts]


def windowed(coder: Coder, x: torch.Tensor, tile: tuple[int, int], stride: tuple[int, int], numerator: int, denominator: int) -> torch.Tensor:
    """Run ``coder`` on tiles of ``x`` and add the results up under windows.

    Args:
        coder: Maps [B, C, h, w] to [B, C', h * numerator / denominator, ...].
        tile, stride: In pixels of ``x``; multiples of ``denominator``.
    """
    height, width = x.shape[-2:]
    unit = denominator
    rows = tile_starts(height // unit, tile[0] // unit, stride[0] // unit)
    columns = tile_starts(width // unit, tile[1] // unit, stride[1] // unit)
    down = _windows(height // unit, tile[0] // unit, rows, numerator, (tile[0] - stride[0]) // unit)
    across = _windows(width // unit, tile[1] // unit, columns, numerator, (tile[1] - stride[1]) // unit)
    down, across = [w.to(x.device) for w in down], [w.to(x.device) for w in across]
    out: torch.Tensor | None = None
    for row, weight_y in zip(rows, down):
        for column, weight_x in zip(columns, across):
            piece = coder(x[..., row * unit : row * unit + tile[0], column * unit : column * unit + tile[1]])
            if out is None:
                out = torch.zeros(*piece.shape[:2], height // unit * numerator, width // unit * numerator, dtype=torch.float32, device=x.device)
            place = out[..., row * numerator :, column * numerator :][..., : piece.shape[-2], : piece.shape[-1]]
            place.addcmul_(piece.float() * weight_y[:, None], weight_x)
    assert out is not None
    return out.to(x.dtype)


# -- diffusers' way ----------------------------------------------------------------------------------------------------------


def _fade(previous: torch.Tensor, tile: torch.Tensor, extent: int, dim: int) -> torch.Tensor:
    """Cross-fade the end of ``previous`` into the beginning of ``tile``, in place."""
    extent = min(previous.shape[dim], tile.shape[dim], extent)
    if extent > 0:
        weight = torch.arange(extent, dtype=torch.float64) / extent
        weight = weight.to(device=tile.device, dtype=tile.dtype).view([-1 if axis == dim else 1 for axis in range(4)])
        begin = tile.narrow(dim, 0, extent)
        begin.copy_(previous.narrow(dim, previous.shape[dim] - extent, extent) * (1 - weight) + begin * weight)
    return tile


def _mosaic(coder: Coder, x: torch.Tensor, tile: tuple[int, int], stride: tuple[int, int], extent: tuple[int, int], crop: tuple[int, int]) -> torch.Tensor:
    height, width = x.shape[-2:]
    above: list[torch.Tensor] = []
    rows = []
    for top in range(0, height, stride[0]):
        current: list[torch.Tensor] = []
        for left in range(0, width, stride[1]):
            current.append(coder(x[..., top : top + tile[0], left : left + tile[1]]).clone())
        pieces = []
        for index, piece in enumerate(current):
            if above:
                _fade(above[index], piece, extent[0], 2)
            if index:
                _fade(current[index - 1], piece, extent[1], 3)
            pieces.append(piece[..., : crop[0], : crop[1]])
        rows.append(torch.cat(pieces, dim=3))
        above = current
    return torch.cat(rows, dim=2)


def upstream_decode(decode: Coder, latents: torch.Tensor, tiles: Tiles, ratio: int) -> torch.Tensor:
    """diffusers' tiled decode of raw latents."""
    size = (tiles.size[0] // ratio, tiles.size[1] // ratio)
    stride = (tiles.stride[0] // ratio, tiles.stride[1] // ratio)
    extent = (tiles.size[0] - tiles.stride[0], tiles.size[1] - tiles.stride[1])
    return _mosaic(decode, latents, size, stride, extent, tiles.stride)


def upstream_encode(encode: Coder, images: torch.Tensor, tiles: Tiles, ratio: int) -> torch.Tensor:
    """diffusers' tiled encode; incomplete tiles are padded with zeros at the right and bottom to a multiple of ``ratio``."""
    size = (tiles.size[0] // ratio, tiles.size[1] // ratio)
    stride = (tiles.stride[0] // ratio, tiles.stride[1] // ratio)
    extent = (size[0] - stride[0], size[1] - stride[1])

    def padded(tile: torch.Tensor) -> torch.Tensor:
        return encode(F.pad(tile, (0, -tile.shape[-1] % ratio, 0, -tile.shape[-2] % ratio)))

    whole = _mosaic(padded, images, tiles.size, tiles.stride, extent, stride)
    return whole[..., : images.shape[-2] // ratio, : images.shape[-1] // ratio]
