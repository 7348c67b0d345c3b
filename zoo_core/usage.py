"""Using a model by its task, from text arguments: what ``zoo run`` and the server share, reading people's pictures included."""

from __future__ import annotations

import inspect
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from zoo_core.errors import InputError
from zoo_core.names import near_misses

if TYPE_CHECKING:
    from PIL.Image import Image

METHODS = {
    "text-to-image": "generate",
    "class-to-image": "generate",
    "image-autoencoder": "reconstruct",
    "causal-lm": "generate",
    "vision-language": "generate",
    "semantic-segmentation": "segment",
    "motion-prediction": "predict",
}
"""Task -> the method that does it."""
OUTPUTS = {"text-to-image": "png", "class-to-image": "png", "image-autoencoder": "png", "causal-lm": "txt", "vision-language": "txt",
           "semantic-segmentation": "png", "motion-prediction": "json"}  # fmt: skip


def method_of(model: Any) -> Callable[..., Any]:
    """The task method of a handle.  Raises InputError for a task of the plugin's own."""
    name = METHODS.get(model.task) or model.card.get("run", {}).get("method")
    if name is None or not hasattr(model, name):
        raise InputError(f"model {model.name!r} has the task {model.task!r}, which the command line cannot run", fix="use it from Python: zoo.load(...)")
    method: Callable[..., Any] = getattr(model, name)
    return method


def check_options(model: Any, method: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse options that the method does not have.

    A method that takes ``**options`` checks them itself; there, only a name that looks like a misspelt one is refused.

    Raises:
        InputError: With the nearest name.
    """
    parameters = inspect.signature(method).parameters.values()
    named = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)][1:]
    hidden = ("callback", "progress", "generator")
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = [*named, *(model.card.get("options") or {})]
    for name in options:
        if name in known:
            continue
        close = near_misses(name, [n for n in known if n not in hidden], 3)
        if close or not open_ended:
            shown = ", ".join(n for n in known if n not in hidden)
            raise InputError(
                f"{model.name} has no option {name!r}",
                tried=[f"did you mean: {', '.join(close)}"] if close else [],
                fix=f"its options: {shown}",
                suggestions=close,
            )


def call(model: Any, prompt: str | None, options: Mapping[str, Any], *, progress: bool = False) -> Any:
    """Run a model on a prompt (text, class numbers or the path of a file, by its task) and return the task's result object.

    Raises:
        InputError: Prompt missing or unusable, unknown option.
    """
    method = method_of(model)
    options = dict(options)
    check_options(model, method, options)
    first = _first_argument(model, prompt, options)
    if progress and "progress" in inspect.signature(method).parameters:
        options["progress"] = True
    return method(first, **options)


def _first_argument(model: Any, prompt: str | None, options: dict[str, Any]) -> Any:
    task = model.task
    if task == "text-to-image":
        return prompt or ""
    if task == "class-to-image":
        try:
            labels = [int(part) for part in (prompt or "").replace(",", " ").split()]
        except ValueError:
            labels = []
        if not labels:
            raise InputError(f"{model.name} draws classes, not {prompt!r}", fix=f"give class numbers: zoo run {model.name} 207,360")
        return labels
    if task in ("image-autoencoder", "semantic-segmentation"):
        if not prompt:
            raise InputError(f"{model.name} needs a picture", fix=f"zoo run {model.name} PICTURE")
        return open_picture(prompt)
    if task == "motion-prediction":
        if not prompt:
            raise InputError(f"{model.name} needs a scene file", fix=f"zoo run {model.name} SCENE")
        return prompt
    if not prompt:
        raise InputError(f"{model.name} needs a prompt", fix=f'zoo run {model.name} "..."')
    for key in ("images", "videos"):
        if isinstance(options.get(key), str):
            options[key] = [part for part in options[key].split(",") if part]
    if "images" in options:
        options["images"] = [open_picture(item) for item in options["images"]]
    return prompt


def environment() -> dict[str, str]:
    """Versions that matter for a result."""
    import torch

    from zoo_core import __version__

    return {"zoo": __version__, "torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}


def record(model: Any, prompt: str | None, options: Mapping[str, Any], result: Any, seconds: float) -> dict[str, Any]:
    """What was done, as data: model, weights, options, seed, times, versions."""
    from zoo_core.interfaces.weights import LoadReport

    report: LoadReport | None = model.report
    return {
        "schema": 1,
        "model": model.name,
        "task": model.task,
        "prompt": prompt,
        "options": {key: value for key, value in options.items() if isinstance(value, (str, int, float, bool, type(None), list))},
        "seed": getattr(result, "seed", None) if getattr(result, "seed", None) is not None else options.get("seed"),
        "seconds": {"total": seconds, **getattr(result, "seconds", {})},
        "info": json.loads(json.dumps(getattr(result, "info", {}), default=str)),
        "files": [{"path": file.path.rpartition("/")[2], "sha256": file.sha256, "verified": file.verified} for file in (report.files if report else [])],
        "kernels": report.kernels if report else {},
        "versions": environment(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def overlay(image: Any, labels: Any, palette: Any, opacity: float = 0.6) -> Any:
    """A picture with its class map [H, W] laid over it in the palette's colours; classes beyond the palette (255: void) stay clear."""
    import numpy as np
    from PIL import Image

    labels = np.asarray(labels)
    if image.size != (labels.shape[1], labels.shape[0]):
        image = image.resize((labels.shape[1], labels.shape[0]), Image.Resampling.BILINEAR)
    base = np.asarray(image.convert("RGB"), dtype=np.float32)
    colours = np.asarray(palette, dtype=np.float32)
    known = (labels >= 0) & (labels < len(colours))
    painted = base.copy()
    painted[known] = (1 - opacity) * base[known] + opacity * colours[labels[known]]
    return Image.fromarray(painted.round().clip(0, 255).astype("uint8"))


# -- pictures that people give -----------------------------------------------------------------------------------------------


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
