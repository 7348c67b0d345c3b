"""Which pixels are refined: the entropy of the coarse scores (paper section 3; fact sheet 2.1), by threshold, share or budget."""

from __future__ import annotations

import math
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
    most = budget if top_k is None else round(top_k * size[0] * size[1])
    if most is None:
        coordinates, uncertainty = op(scores.detach(), threshold, size=size)
        return Selection(coordinates, uncertainty, size, scores.shape[0])
    _, uncertainty = op(scores.detach(), math.inf, size=None)  # the map alone
    coordinates = most_uncertain(uncertainty, size, most, above=threshold if top_k is None else -1.0)
    return Selection(coordinates, uncertainty, size, scores.shape[0])


def most_uncertain(uncertainty: Tensor, size: tuple[int, int], most: int, *, above: float = -1.0) -> Tensor:
    """Of each picture at most ``most`` pixels with an entropy strictly above ``above``, the most uncertain ones: int32 [N, 3], row-major.

    The cut is found in the small map, where every cell counts as many pixels as it covers.  Of equal pixels the first in row-major order are taken, so that
    the result does not depend on the device.

    Args:
        uncertainty: [B, h, w].
        size: (H, W) of the pictures.
    """
    device = uncertainty.device
    rows, columns = index_map(size[0], uncertainty.shape[1], device), index_map(size[1], uncertainty.shape[2], device)
    covered = torch.outer(rows.bincount(minlength=uncertainty.shape[1]), columns.bincount(minlength=uncertainty.shape[2])).flatten()
    kept = []
    for image, values in enumerate(uncertainty):
        cut = _cut(values.flatten(), covered, most)
        if cut is None or bool(cut <= above):  # fewer than that are above the threshold
            mask = values > above if most else torch.zeros_like(values, dtype=torch.bool)
            found = mask[rows][:, columns].nonzero()
        else:
            found = (values >= cut)[rows][:, columns].nonzero()
            ties = values[rows[found[:, 0]], columns[found[:, 1]]] == cut
            surplus = found.shape[0] - most
            found = found[~ties | (ties.cumsum(0) <= ties.sum() - surplus)]
        kept.append(torch.cat((torch.full_like(found[:, :1], image), found), 1))
    return torch.cat(kept).int().contiguous()


def _cut(values: Tensor, covered: Tensor, most: int) -> Tensor | None:
    """The largest value such that the cells with it or more cover at least ``most`` pixels; None: all together cover fewer, or none is wanted."""
    if not most or most > int(covered.sum()):
        return None
    least, largest = (int(v) for v in covered.aminmax())
    if least == largest:
        return values.kthvalue(values.shape[0] + 1 - -(-most // least)).values
    ordered, order = values.sort(descending=True)
    return ordered[int(torch.searchsorted(covered[order].cumsum(0), most))]


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
