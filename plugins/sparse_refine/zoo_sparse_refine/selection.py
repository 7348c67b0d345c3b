"""Which pixels are refined: the entropy of the coarse scores (paper section 3; fact sheet 2.1), by threshold, share or budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zoo_core.errors import InputError

LEAST = 1e-5
"""Smallest probability inside the logarithm (only there)."""


def entropy(probabilities: Tensor) -> Tensor:
    """-sum_c p_c ln(max(p_c, 1e-5)) over the last axis, in nats."""
    return -(probabilities * probabilities.clamp_min(LEAST).log()).sum(-1)


def log_scores(scores: Tensor) -> Tensor:
    """Scores that are not normalised over classes (Mask2Former) as logits: ln(max(score, 1e-10))."""
    return scores.clamp_min(1e-10).log()


def nearest(coordinates: Tensor, size: tuple[int, int], small: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Image, row and column (int64) in the small picture of points of the large one, as ``interpolate(mode="nearest")`` maps them."""
    image, row, column = coordinates.long().unbind(1)
    return image, index_map(size[0], small[0], coordinates.device)[row], index_map(size[1], small[1], coordinates.device)[column]


def index_map(large: int, small: int, device: torch.device) -> Tensor:
    """int64 [large]: the source index of every target index, in float32 arithmetic as PyTorch does it."""
    scale = torch.tensor(small, dtype=torch.float32, device=device) / large
    return (torch.arange(large, device=device).float() * scale).long().clamp_max_(small - 1)


@dataclass
class Selection:
    """The pixels to refine.

    Attributes:
        coordinates: int32 [N, 3] = (image, row, column) at full size, contiguous, row-major.
        entropy: float32 [B, h, w] at the resolution of the scores.
        size: (H, W).
        images: B.
    """

    coordinates: Tensor
    entropy: Tensor
    size: tuple[int, int]
    images: int

    @property
    def share(self) -> float:
        """Selected pixels / all pixels."""
        return self.coordinates.shape[0] / max(1, self.images * self.size[0] * self.size[1])


def select_pixels(
    scores: Tensor,
    size: tuple[int, int],
    *,
    threshold: float,
    top_k: float | None = None,
    budget: int | None = None,
    op: Callable[..., Any] | None = None,
) -> Selection:
    """Select pixels of pictures of ``size`` from scores [B, C, h, w] (logits).

    Args:
        threshold: Entropy strictly above it selects.
        top_k: Instead of the threshold: this share (0..1] of the pixels of each picture, the most uncertain ones.
        budget: At most this many pixels of each picture: of those that the threshold selects, the most uncertain ones.
        op: The bound ``entropy_select`` kernel.

    Raises:
        InputError: ``top_k`` outside (0, 1], a negative ``budget``, or both.
    """
    if top_k is not None and budget is not None:
        raise InputError("top_k and budget were both given", fix="give one")
    if top_k is not None and not 0 < top_k <= 1:
        raise InputError(f"top_k = {top_k} is not a share", fix="give a number above 0 and at most 1")
    if budget is not None and budget < 0:
        raise InputError(f"budget = {budget} is negative", fix="give a number of pixels")
    if op is None:
        import zoo_kernels

        op = zoo_kernels.select("entropy_select", device=scores.device, dtype=scores.dtype, needs_grad=False)
    limit = threshold if top_k is None else -1.0
    coordinates, uncertainty = op(scores.detach(), limit, size=size)
    most = budget if top_k is None else round(top_k * size[0] * size[1])
    if most is not None:
        coordinates = _most_uncertain(coordinates, uncertainty, size, scores.shape[0], most)
    return Selection(coordinates, uncertainty, size, scores.shape[0])


def _most_uncertain(coordinates: Tensor, uncertainty: Tensor, size: tuple[int, int], images: int, most: int) -> Tensor:
    """At most ``most`` points of each image; ties go to the first in row-major order, so the result does not depend on the device."""
    small = (uncertainty.shape[1], uncertainty.shape[2])
    kept = []
    for image in range(images):
        own = coordinates[coordinates[:, 0] == image]
        if own.shape[0] > most:
            _, row, column = nearest(own, size, small)
            order = uncertainty[image][row, column].sort(descending=True, stable=True).indices[:most]
            own = own[order.sort().values]
        kept.append(own)
    return torch.cat(kept).contiguous()


class LearnableSelector(nn.Module):
    """The reference's optional selector (no published experiment uses it; a hard threshold gives it no gradient).

    Two 3 x 3 convolutions on the image, joined with the logits, and a pointwise network; probability above ``threshold`` selects.
    """

    def __init__(self, num_classes: int = 19, width: int = 16, hidden: int = 32) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.mlp = nn.Sequential(nn.Linear(num_classes + width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, image: Tensor, logits: Tensor) -> Tensor:
        """Probability [B, H, W] from an image [B, H, W, 3] and logits [B, H, W, C]."""
        seen = self.conv(image.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.mlp(torch.cat((logits, seen), -1)).squeeze(-1).sigmoid()
