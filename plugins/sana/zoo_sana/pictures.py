"""Tensors to pictures and back, and the progress bar."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo_core.errors import InputError


def progress_bar(total: int, show: bool) -> Any:
    """Context manager that gives ``tick()``."""
    import contextlib

    @contextlib.contextmanager
    def bar() -> Any:
        if not show:
            yield lambda: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (TextColumn("denoise"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, transient=True) as shown:
            task = shown.add_task("denoise", total=total)
            yield lambda: shown.advance(task)

    return bar()


def to_pil(pictures: Tensor) -> list[Any]:
    """[B, 3, H, W] in [0, 1] -> RGB pictures."""
    from PIL import Image

    array = (pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(row) for row in array]


def to_tensor(image: Any) -> Tensor:
    """A PIL picture (any mode, EXIF rotation applied) -> [3, H, W] in [-1, 1]."""
    import numpy as np
    from PIL import ImageOps
    from PIL.Image import Image

    if not isinstance(image, Image):
        raise InputError(f"image is a {type(image).__name__}", fix="pass a PIL picture or a tensor [B, 3, H, W] in [-1, 1]")
    array = np.asarray(ImageOps.exif_transpose(image).convert("RGB"), dtype=np.float32)
    return torch.from_numpy(array.copy()).permute(2, 0, 1) / 127.5 - 1
