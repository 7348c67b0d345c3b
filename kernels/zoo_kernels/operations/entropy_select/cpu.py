"""CPU: rows of scores in pieces of the second-level cache, everything in place."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo_kernels.operations.entropy_select.reference import CLAMP, coordinates_of
from zoo_kernels.operations.entropy_select.reference import entropy_select as definition

LEAST = math.log(CLAMP)
PIECE = 1 << 17
"""Scores per piece."""


@torch.no_grad()
def entropy_select(scores: Tensor, threshold: float, size: tuple[int, int] | None = None, channels_last: bool = False) -> tuple[Tensor, Tensor]:
    """See :func:`zoo_kernels.operations.entropy_select.reference.entropy_select`."""
    if scores.dim() != 4 or not scores.numel() or torch.compiler.is_compiling():
        return definition(scores, threshold, size, channels_last)
    dim = 3 if channels_last else 1
    ordered = scores.movedim(dim, 1)  # [B, C, h, w]
    images, classes, rows, columns = ordered.shape
    entropy = torch.empty(images, rows, columns)
    step = max(1, PIECE // (classes * columns))
    for image in range(images):
        for begin in range(0, rows, step):
            piece = ordered[image, :, begin : begin + step].movedim(0, 2 if channels_last else 0)
            along = 2 if channels_last else 0
            logarithm = piece.float() - piece.amax(along, keepdim=True)  # ln p after the next lines: one exponential per score and no logarithm
            p = logarithm.exp()
            total = p.sum(along, keepdim=True)
            logarithm.sub_(total.log()).clamp_min_(LEAST).mul_(p)
            torch.div(logarithm.sum(along), total.squeeze(along), out=entropy[image, begin : begin + step])
    return coordinates_of(entropy.neg_(), threshold, size), entropy
