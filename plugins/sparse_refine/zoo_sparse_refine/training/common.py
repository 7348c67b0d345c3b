"""Pictures, samples and measures of both recipes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo_core.training import Batches
from zoo_sparse_refine.data.augment import Augment, Crops
from zoo_sparse_refine.metrics import confusion, mean_iou, pixel_accuracy
from zoo_sparse_refine.training.config import DataConfig


def scenes(config: DataConfig, *, held_out: bool = False) -> Any:
    """The data set of a run: a sequence of (uint8 [H, W, 3], uint8 [H, W]) with ``classes``, ``palette`` and ``ignore_index``."""
    if config.data == "streets":
        from zoo_sparse_refine.data.streets import Streets

        count = config.held_out if held_out else config.scenes
        return Streets(config.seed + int(held_out), count, height=config.height, width=config.width, folder=config.folder or None)
    from zoo_sparse_refine.data.folders import open_folder

    return open_folder(config.data, config.folder, split="val" if held_out else "train")


def batches(config: DataConfig, data: Any, *, shrink: int = 1) -> Batches:
    """Seeded random crops, this process's part of them."""
    augment = Augment(config.crop_height, config.crop_width, config.scale_low, config.scale_high, ignore=data.ignore_index)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    return Batches({"index": torch.arange(len(data))}, config.batch_size, seed=config.seed, transform=Crops(data, augment, shrink), rank=rank, world_size=world)


def frequencies(data: Any, count: int, limit: int = 24) -> Tensor:
    """Share of the pixels of each class in the first pictures, float64 [count]."""
    total = np.zeros(256, dtype=np.int64)
    for index in range(min(limit, len(data))):
        total += np.bincount(data[index][1][::4, ::4].reshape(-1), minlength=256)
    shares = torch.from_numpy(total[:count]).double()
    return shares / shares.sum().clamp_min(1)


def class_weights(data: Any, count: int, power: float) -> Tensor:
    """frequency ** -power of each class, scaled so that the mean over pixels is 1: float32 [count]."""
    shares = frequencies(data, count)
    weights = shares.clamp_min(1e-5) ** -power
    return (weights / (weights * shares).sum()).float()


def measure(predict: Callable[[Tensor], Tensor], data: Any, limit: int, device: torch.device) -> dict[str, float]:
    """mIoU and pixel accuracy at full resolution of ``predict(pixels [1, 3, H, W]) -> labels [1, H, W]`` over the first pictures."""
    classes = len(data.classes)
    table = torch.zeros(classes, classes, dtype=torch.int64)
    for index in range(min(limit, len(data))):
        image, labels = data[index]
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None].float()
        table += confusion(predict(pixels).cpu(), torch.from_numpy(np.ascontiguousarray(labels)), classes, data.ignore_index)
    return {"miou": mean_iou(table), "pixel_accuracy": pixel_accuracy(table)}


def nearest_labels(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Classes of small scores [B, C, h, w] at full size, by the nearest pixel: uint8 [B, H, W]."""
    return F.interpolate(scores.argmax(1)[:, None].float(), size=size, mode="nearest")[:, 0].to(torch.uint8)
