"""Size tables: the nearest trained aspect ratio, and the way back to the requested size."""

from __future__ import annotations

import functools
import json
from importlib.resources import files
from typing import TYPE_CHECKING

from zoo_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@functools.lru_cache(maxsize=1)
def _tables() -> dict[str, dict[str, list[int]]]:
    return json.loads(files("zoo_sana").joinpath("tables/resolution_bins.json").read_text(encoding="utf-8"))["tables"]


def nearest_bin(height: int, width: int, sample_size: int) -> tuple[int, int]:
    """The trained size (height, width) whose ratio is closest to the request; the request itself when the model has no table.

    >>> nearest_bin(1000, 1000, 32)
    (1024, 1024)
    """
    table = _tables().get(str(sample_size))
    if table is None:
        return height, width
    ratio = height / width
    key = min(table, key=lambda text: abs(float(text) - ratio))
    return int(table[key][0]), int(table[key][1])


def resize_and_crop(images: Tensor, height: int, width: int) -> Tensor:
    """[B, C, H, W] -> [B, C, height, width]: bilinear resize that covers the target, then a centre crop."""
    import torch.nn.functional as F

    old_height, old_width = images.shape[-2:]
    if (old_height, old_width) == (height, width):
        return images
    ratio = max(height / old_height, width / old_width)
    size = (max(height, int(old_height * ratio)), max(width, int(old_width * ratio)))
    images = F.interpolate(images.float(), size=size, mode="bilinear", align_corners=False).to(images.dtype)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return images[:, :, top : top + height, left : left + width]


def check_size(height: int, width: int, multiple: int) -> None:
    """Raise :class:`InputError` unless both sides are positive multiples; names the nearest legal size."""
    if height < multiple or width < multiple or height % multiple or width % multiple:
        legal = tuple(max(multiple, round(side / multiple) * multiple) for side in (height, width))
        raise InputError(f"size {height}x{width}: both sides must be multiples of {multiple}", fix=f"height={legal[0]}, width={legal[1]}, or binning=True")
