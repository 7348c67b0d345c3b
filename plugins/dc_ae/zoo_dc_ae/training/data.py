"""Pictures for the recipe: the emoji set, or any folder of pictures, as uint8 RGBA tensors; augmentation on the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo_core.errors import ConfigError
from zoo_dc_ae.training.config import AutoencoderTrainConfig

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
HELD_OUT = 0.06


def load_pictures(config: AutoencoderTrainConfig, log: Callable[[str], None] = print) -> tuple[Tensor, Tensor]:
    """Training and held-out pictures, uint8 [N, 4, size, size] each, at the larger of the sizes that are asked for."""
    if config.data == "emoji":
        from zoo_core.datasets.emoji import build_emoji_set

        data = build_emoji_set(size=config.size, folder=config.data_folder or None, log=log)
        pictures = torch.from_numpy(data.images).permute(0, 3, 1, 2)
        return pictures[data.indices(held_out=False)], pictures[data.indices(held_out=True)]
    return _folder(Path(config.data), config.size)


def _folder(folder: Path, size: int) -> tuple[Tensor, Tensor]:
    from PIL import Image, ImageOps

    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if len(paths) < 2:
        raise ConfigError(f"data={folder}: {len(paths)} pictures there", fix="data=emoji, or a folder with at least 2 pictures")
    sides: tuple[list[Tensor], list[Tensor]] = ([], [])
    for path in paths:
        with Image.open(path) as file:
            picture = ImageOps.fit(file.convert("RGBA"), (size, size), Image.Resampling.LANCZOS)
        tensor = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(size, size, 4).permute(2, 0, 1)
        name = hashlib.sha256(path.relative_to(folder).as_posix().encode()).digest()
        sides[name[0] < HELD_OUT * 256].append(tensor)
    if not sides[1]:
        sides[1].append(sides[0].pop())
    return torch.stack(sides[0]), torch.stack(sides[1])


def compose(rgba: Tensor, background: Tensor | None = None) -> Tensor:
    """uint8 RGBA [B, 4, H, W] on a plain ``background`` [B, 3] in [-1, 1] (default white): float32 RGB in [-1, 1]."""
    colour, alpha = rgba[:, :3].float().div(127.5).sub(1), rgba[:, 3:].float().div(255)
    ground = 1.0 if background is None else background[:, :, None, None]
    return colour * alpha + ground * (1 - alpha)


class Augment:
    """Batch transform: mirror, shift by up to 6% of the side, sometimes another background or permuted colour channels."""

    def __init__(self, colours: float, backgrounds: float, low_size: int = 0) -> None:
        self.colours, self.backgrounds, self.low_size = colours, backgrounds, low_size
        self.turn = 0

    def __call__(self, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        rgba = batch["pictures"]
        count, side = len(rgba), rgba.shape[-1]
        draw = torch.rand(4, count, generator=generator)
        if self.low_size and float(torch.rand((), generator=generator)) < 0.5:
            rgba = F.interpolate(rgba.float(), size=(self.low_size, self.low_size), mode="area").round().to(torch.uint8)
            side = self.low_size
        ground = torch.ones(count, 3)
        ground[draw[0] < self.backgrounds] = torch.rand(int((draw[0] < self.backgrounds).sum()), 3, generator=generator) * 2 - 1
        margin = round(0.06 * side)
        moves = torch.randint(-margin, margin + 1, (2,), generator=generator).tolist()
        rgba = F.pad(rgba, (moves[0], -moves[0], moves[1], -moves[1]))
        images = compose(rgba, ground)
        flip = draw[1] < 0.5
        images[flip] = images[flip].flip(-1)
        permuted = draw[2] < self.colours
        if permuted.any():
            images[permuted] = images[permuted][:, torch.randperm(3, generator=generator)]
        return images.contiguous(memory_format=torch.channels_last)
