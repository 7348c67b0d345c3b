"""Baseline and refiner together: from a normalised picture to a class map, with the time of every part."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_sparse_refine.baselines import Baseline
from zoo_sparse_refine.config import MEAN, STD, SparseRefineConfig
from zoo_sparse_refine.refiner import Refined, Refiner, best_class, clock, enlarge, refined_labels

MULTIPLE = 32
"""Sides of the baseline's input are multiples of it."""


@dataclass
class Output:
    """Class map [B, H, W], coarse logits [B, C, h, w], what was refined (None: nothing), and milliseconds per part."""

    labels: Tensor
    scores: Tensor
    refined: Refined | None
    milliseconds: dict[str, float] = field(default_factory=dict)


class SparseRefineNetwork(nn.Module):
    """``baseline`` and ``refiner`` as one module."""

    def __init__(self, config: SparseRefineConfig, baseline: Baseline, refiner: Refiner) -> None:
        super().__init__()
        self.config = config
        self.baseline = baseline
        self.refiner = refiner

    def small_size(self, height: int, width: int) -> tuple[int, int]:
        """Size at which the baseline sees a picture of this size: scaled as the reference size is, sides multiples of 32 (0: full size)."""
        base, full = self.config.baseline, self.config
        if not base.height or not base.width:
            return _rounded(height), _rounded(width)
        if not full.height or not full.width:
            return base.height, base.width
        return _rounded(height * base.height / full.height), _rounded(width * base.width / full.width)

    def coarse(self, image: Tensor) -> Tensor:
        """Logits [B, C, h, w] of the small picture; ``image`` [B, 3, H, W] is normalised, in R G B order."""
        size = self.small_size(image.shape[2], image.shape[3])
        if size != tuple(image.shape[2:]):
            image = F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=self.config.baseline.antialias)
        return self.baseline(image)

    def detail(self, pixels: Tensor, image: Tensor | None = None) -> Tensor:
        """What the refiner sees of pixels 0..255 [B, 3, H, W] (R G B): normalised, in its configuration's channel order.

        Args:
            image: ``normalise(pixels)``, if it is at hand.
        """
        if self.refiner.config.channel_order == "bgr":
            return normalise(pixels.flip(1))
        return normalise(pixels) if image is None else image

    def forward(self, pixels: Tensor, *, refine: bool = True, threshold: float | None = None, top_k: float | None = None, budget: int | None = None) -> Output:
        """Segment pictures.

        Args:
            pixels: float [B, 3, H, W] in 0..255, R G B.
            refine: False: only the baseline, its classes enlarged (nearest).
            threshold, top_k, budget: See :func:`~zoo_sparse_refine.selection.select_pixels`.
        """
        marks = [_now(pixels)]
        size = (pixels.shape[2], pixels.shape[3])
        image = normalise(pixels)
        scores = self.coarse(image)
        marks.append(_now(pixels))
        if not refine:
            labels = enlarge(best_class(scores), size)
            return Output(labels, scores, None, {"dense": marks[1] - marks[0]})
        selection = self.refiner.select(scores, size, threshold=threshold, top_k=top_k, budget=budget)
        marks.append(_now(pixels))
        found = self.refiner.refine(self.detail(pixels, image), scores, selection)
        marks.append(_now(pixels))
        labels = refined_labels(scores, found)
        marks.append(_now(pixels))
        spent = {name: marks[i + 1] - marks[i] for i, name in enumerate(("dense", "selector", "sparse", "write"))}
        ensemble = 1000 * found.seconds["ensemble"]
        spent |= {"sparse": spent["sparse"] - ensemble, "ensemble": ensemble}
        return Output(labels, scores, found, {name: spent[name] for name in ("dense", "selector", "sparse", "ensemble", "write")})


def normalise(pixels: Tensor) -> Tensor:
    """(value - mean) / deviation by position: the first channel with the mean of red, whatever it holds."""
    mean = torch.tensor(MEAN, device=pixels.device, dtype=pixels.dtype).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=pixels.device, dtype=pixels.dtype).view(1, 3, 1, 1)
    return (pixels - mean) / std


def _rounded(side: float) -> int:
    return max(MULTIPLE, round(side / MULTIPLE) * MULTIPLE)


def _now(like: Tensor) -> float:
    """Milliseconds; waits for the GPU, once per part of a picture."""
    return 1000 * clock(like)
