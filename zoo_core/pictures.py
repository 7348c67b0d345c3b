"""Reading pictures that people give: any mode, EXIF rotation, broken and oversized files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from zoo_core.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 200_000_000
"""Pictures with more are refused (a small file can unpack to a very large picture)."""


def open_picture(source: str | os.PathLike[str] | Image) -> Image:
    """A picture as upright 8-bit RGB.

    EXIF rotation is applied; transparency is laid over white; 16-bit grey is scaled by its own range of 65535; CMYK, palette and grey pictures are converted.

    Raises:
        InputError: No file, not a picture, damaged, or more than :data:`MAX_PIXELS` pixels.
    """
    from PIL import Image as PIL
    from PIL import ImageOps, UnidentifiedImageError

    if isinstance(source, PIL.Image):
        image, name = source, "picture"
    else:
        name = os.fspath(source)
        try:
            image = PIL.open(os.path.expanduser(name))
        except FileNotFoundError:
            raise InputError(f"picture {name!r} does not exist", fix="give the path of a PNG, JPEG or WebP file") from None
        except UnidentifiedImageError:
            raise InputError(f"{name!r} is not a picture", fix="give the path of a PNG, JPEG or WebP file") from None
        except (OSError, ValueError, PIL.DecompressionBombError) as error:
            raise InputError(f"picture {name!r} cannot be read: {error}", fix="give another file") from None
    if image.width * image.height > MAX_PIXELS:
        raise InputError(f"picture {name!r} has {image.width}x{image.height} pixels", fix=f"at most {MAX_PIXELS:,} pixels: make it smaller first")
    try:
        image = ImageOps.exif_transpose(image)
        return _rgb(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"picture {name!r} is damaged: {error}", fix="give another file") from None


def _rgb(image: Any) -> Image:
    from PIL import Image as PIL

    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        import numpy as np

        values = np.asarray(image, dtype=np.float64)
        scale = 65535.0 if image.mode != "F" or values.max(initial=0) > 1 else 1.0
        return PIL.fromarray((np.clip(values / scale, 0, 1) * 255).round().astype("uint8")).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or (image.mode == "P" and "transparency" in image.info):
        image = image.convert("RGBA")
        ground = PIL.new("RGBA", image.size, (255, 255, 255, 255))
        return PIL.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")  # type: ignore[no-any-return]
