"""Boundary IoU (Cheng et al. 2021, arXiv 2103.16562): the IoU of the bands within ``d`` pixels of a mask's edge; tells what mIoU hides in large areas."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

RATIO = 0.005
"""Width of the band as a share of the picture's diagonal (the paper's value for Cityscapes)."""


def band_width(height: int, width: int, ratio: float = RATIO) -> int:
    """Pixels, at least 1."""
    return max(1, round(ratio * (height**2 + width**2) ** 0.5))


def bands(masks: Tensor, width: int) -> Tensor:
    """The part of each mask bool [N, H, W] within ``width`` pixels (city-block of squares) of its edge; what lies beyond the picture counts as outside."""
    outside = F.pad((~masks).float()[:, None], (width, width, width, width), value=1.0)
    size = 2 * width + 1
    near = F.max_pool2d(F.max_pool2d(outside, (size, 1), stride=1), (1, size), stride=1)[:, 0] > 0
    return masks & near


def boundary_counts(predicted: Tensor, labels: Tensor, classes: int, *, ignore: int = 255, ratio: float = RATIO) -> Tensor:
    """Intersection and union of the bands of every class, int64 [2, classes]; ignored pixels count in neither.

    Args:
        predicted, labels: Integer [H, W].
    """
    width = band_width(*labels.shape, ratio)
    known = labels != ignore
    counts = torch.zeros(2, classes, dtype=torch.int64)
    for number in range(classes):
        both = torch.stack(((predicted == number) & known, labels == number))
        if not bool(both.any()):
            continue
        first, second = bands(both, width)
        counts[0, number], counts[1, number] = (first & second).sum(), (first | second).sum()
    return counts


def mean_boundary_iou(counts: Tensor) -> float:
    """Mean over the classes that occur."""
    present = counts[1] > 0
    return float((counts[0][present] / counts[1][present]).double().mean()) if bool(present.any()) else 0.0
