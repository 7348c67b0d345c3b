"""Pictures to tensors and back, and reflection padding to a multiple of the ratio."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zoo_core.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image


def open_picture(picture: Image | str | os.PathLike[str]) -> Image:
    """An RGB picture from a PIL image of any mode or from a file; EXIF rotation is applied, transparency is laid on white, 16-bit greys are scaled."""
    from PIL import Image as pil
    from PIL import ImageOps, UnidentifiedImageError

    if isinstance(picture, (str, os.PathLike)):
        try:
            image = pil.open(picture)
            image.load()
        except FileNotFoundError as error:
            raise InputError(f"picture {str(picture)!r} does not exist", fix="give the path of a picture") from error
        except (UnidentifiedImageError, OSError) as error:
            raise InputError(f"{str(picture)!r} is not a readable picture: {error}", fix="give a PNG, JPEG or WebP file") from error
    elif isinstance(picture, pil.Image):
        image = picture
    else:
        raise InputError(f"a picture is expected, got {type(picture).__name__}", fix="give PIL images or file names (tensors go to encode())")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode == "I":
        grey = np.asarray(image).astype(np.float64)
        image = pil.fromarray((grey / 257.0 + 0.5).clip(0, 255).astype(np.uint8), "L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = pil.alpha_composite(pil.new("RGBA", image.size, "white"), image)
    if 0 in image.size:
        raise InputError(f"picture of size {image.size}", fix="give a picture with at least one pixel")
    return image.convert("RGB")


def to_tensor(picture: Image) -> torch.Tensor:
    """RGB picture -> float32 [3, H, W] in [-1, 1]."""
    array = np.asarray(picture, dtype=np.uint8)
    return torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 127.5 - 1.0


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """[-1, 1] -> uint8 as the evaluation protocol asks: ``255 * (x + 1) / 2 + 0.5``, clamped and truncated."""
    return (127.5 * (images.float() + 1.0) + 0.5).clamp(0, 255).to(torch.uint8)


def to_pictures(images: torch.Tensor) -> list[Image]:
    """[B, 3, H, W] in [-1, 1] -> RGB pictures."""
    from PIL import Image as pil

    arrays = to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()
    return [pil.fromarray(np.ascontiguousarray(array)) for array in arrays]


def _reflection(length: int, target: int) -> torch.Tensor:
    """Indices that extend ``range(length)`` to ``target`` by reflection (the border pixel is not repeated), also when target > 2 * length."""
    if length == 1:
        return torch.zeros(target, dtype=torch.int64)
    period = 2 * (length - 1)
    index = torch.arange(target) % period
    return torch.where(index < length, index, period - index)


def pad_reflect(images: torch.Tensor, multiple: int) -> torch.Tensor:
    """[B, 3, H, W] extended at right and bottom to multiples of ``multiple`` by reflection.

    >>> pad_reflect(torch.arange(3.0).view(1, 1, 1, 3), 4)[0, 0, 0].tolist()
    [0.0, 1.0, 2.0, 1.0]
    """
    for dim in (2, 3):
        length = images.shape[dim]
        target = -(-length // multiple) * multiple
        if target != length:
            images = images.index_select(dim, _reflection(length, target).to(images.device))
    return images


def as_list(images: Any) -> list[Any]:
    """One picture or a sequence of them as a list."""
    if isinstance(images, (str, os.PathLike)) or not isinstance(images, Sequence):
        return [images]
    return list(images)
