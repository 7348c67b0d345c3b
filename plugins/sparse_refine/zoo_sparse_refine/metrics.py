"""Numbers of semantic segmentation from a confusion table, and the dice loss (fact sheet section 3)."""

from __future__ import annotations

import torch
from torch import Tensor


def confusion(predicted: Tensor, labels: Tensor, classes: int, ignore: int = 255) -> Tensor:
    """int64 [classes, classes]: rows are labels, columns predictions; pixels with the label ``ignore`` do not count."""
    predicted, labels = predicted.reshape(-1).long(), labels.reshape(-1).long()
    valid = (labels != ignore) & (labels >= 0) & (labels < classes)
    return torch.bincount(labels[valid] * classes + predicted[valid], minlength=classes * classes).view(classes, classes)


def class_iou(table: Tensor) -> Tensor:
    """Intersection / max(union, 1e-5) of each class, float64 [classes]."""
    table = table.double()
    hit = table.diagonal()
    return hit / (table.sum(0) + table.sum(1) - hit).clamp_min(1e-5)


def mean_iou(table: Tensor, *, present_only: bool = False) -> float:
    """Mean over all classes, a class that occurs nowhere as 0 (the reference's definition); ``present_only`` leaves such classes out."""
    iou = class_iou(table)
    if present_only:
        iou = iou[(table.sum(0) + table.sum(1)) > 0]
    return float(iou.mean()) if iou.numel() else 0.0


def pixel_accuracy(table: Tensor) -> float:
    """Share of the pixels with the right class (what the reference calls "macc")."""
    return float(table.diagonal().sum() / table.sum().clamp_min(1))


def dice_loss(logits: Tensor, labels: Tensor, ignore: int = 255) -> Tensor:
    """1 - mean over classes of 2 I / (sum + 1e-5) for logits [N, C] and labels [N]; classes that do not occur count too."""
    valid = labels != ignore
    probabilities = logits[valid].softmax(-1)
    truth = torch.nn.functional.one_hot(labels[valid].long(), logits.shape[-1]).to(probabilities.dtype)
    overlap = (probabilities * truth).sum(0)
    return 1 - (2 * overlap / (probabilities.sum(0) + truth.sum(0) + 1e-5)).mean()
