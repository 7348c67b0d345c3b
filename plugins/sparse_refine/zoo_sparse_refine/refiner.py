"""The refiner: selected pixels -> features -> sparse U-Net -> classifier -> ensemble with the coarse scores (paper section 3, fact sheet 2)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from zoo_core.errors import InputError
from zoo_sparse_refine.config import RefinerConfig
from zoo_sparse_refine.ensembler import EntropyEnsembler, GatedEnsembler
from zoo_sparse_refine.selection import Selection, index_map, nearest, select_pixels
from zoo_sparse_refine.sparse.engines import make_engine
from zoo_sparse_refine.unet import SparseUNet


@dataclass
class Refined:
    """Logits [N, C] of the selected pixels: ``coarse`` (i), ``refined`` alone (o), ``ensembled`` (e); seconds of the ensembler."""

    selection: Selection
    coarse: Tensor
    refined: Tensor
    ensembled: Tensor
    seconds: dict[str, float] = field(default_factory=dict)


def point_features(names: list[str], image: Tensor, coarse: Tensor, selection: Selection) -> Tensor:
    """What the points carry, [N, F], in the order of ``names`` (fact sheet 2.2).

    Args:
        image: [B, 3, H, W], normalised.
        coarse: Coarse logits of the points, [N, C].
    """
    picture, row, column = selection.coordinates.long().unbind(1)
    found = []
    probabilities = coarse.float().softmax(-1) if any(name.startswith("p") for name in names) else coarse
    for name in names:
        if name == "rgb":
            found.append(image.permute(0, 2, 3, 1)[picture, row, column].float())
        elif name == "xy":
            found.append(torch.stack((row / selection.size[0], column / selection.size[1]), 1).float())
        elif name == "p":
            found.append(probabilities)
        else:
            found.append((probabilities > float(name.partition(">")[2])).float())
    return torch.cat(found, 1)


def clock(like: Tensor) -> float:
    """Seconds.  In inference it waits for the GPU, so that the parts of a picture can be told apart; a training step is never held up."""
    if like.device.type == "cuda" and not torch.is_grad_enabled():
        torch.cuda.synchronize(like.device)
    return time.perf_counter()


class Refiner(nn.Module):
    """Sparse refiner; parameters are named as in the reference (``backbone``, ``classifier``, ``ensembler``).

    Attributes:
        engine: ``"kernels"`` (default), ``"spconv"`` or ``"spconv-triton"``.
        convolve, choose: The bound kernels ``sparse_conv2d`` and ``entropy_select`` (None: looked up at the first use on each device).
    """

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        self.config = config.check()
        self.backbone = SparseUNet(config.in_channels, config.reps, config.planes)
        self.classifier = nn.Linear(config.planes[0], config.num_classes)
        self.ensembler: nn.Module = GatedEnsembler(config.num_classes, config.hidden) if config.ensembler == "gated" else EntropyEnsembler()
        self.engine = "kernels"
        self.convolve: Callable[..., Tensor] | None = None
        self.choose: Callable[..., Any] | None = None

    def select(
        self, scores: Tensor, size: tuple[int, int], *, threshold: float | None = None, top_k: float | None = None, budget: int | None = None
    ) -> Selection:
        """Uncertain pixels of pictures of ``size`` (H, W) from coarse logits [B, C, h, w]; the threshold defaults to the configuration's."""
        if threshold is None and top_k is None and budget is None and self.config.top_k:
            top_k = self.config.top_k
        limit = self.config.threshold if threshold is None else threshold
        return select_pixels(scores, size, threshold=limit, top_k=top_k, budget=budget, op=self.choose)

    def refine(self, image: Tensor, scores: Tensor, selection: Selection) -> Refined:
        """Refine the selected pixels.

        Args:
            image: [B, 3, H, W], normalised, channels in the configuration's order.
            scores: Coarse logits [B, C, h, w]; each pixel takes those of the nearest low-resolution pixel.

        Raises:
            InputError: Sizes do not fit.
        """
        if image.shape[0] != scores.shape[0] or tuple(image.shape[2:]) != selection.size:
            raise InputError(f"image {tuple(image.shape)} does not fit scores {tuple(scores.shape)} and a selection for {selection.size}", fix="use one batch")
        if scores.shape[1] != self.config.num_classes:
            raise InputError(f"the scores have {scores.shape[1]} classes, the refiner {self.config.num_classes}", fix="use a baseline with the same classes")
        picture, row, column = nearest(selection.coordinates, selection.size, (scores.shape[2], scores.shape[3]))
        coarse = scores.permute(0, 2, 3, 1)[picture, row, column].float()
        features = point_features(self.config.features, image, coarse, selection)
        op = None if torch.is_grad_enabled() else self.convolve  # the bound kernel is for inference
        place = {"size": selection.size, "images": selection.images, "bounds": self.config.bounds}
        engine = make_engine(self.engine, selection.coordinates, self.backbone.depth, op=op, **place)
        refined = self.classifier(self.backbone(features, engine))
        began = clock(refined)
        ensembled = self.ensembler(coarse, refined)
        return Refined(selection, coarse, refined, ensembled, {"ensemble": clock(ensembled) - began})

    def forward(self, image: Tensor, logits: Tensor, *, threshold: float | None = None) -> dict[str, Tensor]:
        """The reference's output dictionary, everything channels-last.

        Args:
            image: [B, H, W, 3], normalised.
            logits: Coarse logits [B, H, W, C] at full size.

        Returns:
            ``mask`` [B, H, W] and ``logits/{i,o,e}/{mask,full}``: selected pixels in row-major order [N, C], and scattered back [B, H, W, C].
        """
        scores = logits.permute(0, 3, 1, 2)
        size = (logits.shape[1], logits.shape[2])
        found = self.refine(image.permute(0, 3, 1, 2), scores, self.select(scores, size, threshold=threshold))
        index = found.selection.coordinates.long().unbind(1)
        mask = torch.zeros(logits.shape[:3], dtype=torch.bool, device=logits.device)
        mask[index] = True
        out = {"mask": mask, "logits/i/full": logits}
        for key, value in (("i", found.coarse), ("o", found.refined), ("e", found.ensembled)):
            out[f"logits/{key}/mask"] = value
            if key != "i":
                out[f"logits/{key}/full"] = logits.index_put(index, value.to(logits.dtype))
        return out


def refined_labels(scores: Tensor, found: Refined) -> Tensor:
    """Class map uint8 or int64 [B, H, W]: the coarse arg max at the nearest pixel, and the ensembled one where a pixel was refined.

    The full-size score map is never built.
    """
    labels = enlarge(best_class(scores), found.selection.size)
    labels[found.selection.coordinates.long().unbind(1)] = found.ensembled.argmax(1).to(labels.dtype)
    return labels


def best_class(scores: Tensor) -> Tensor:
    """The class with the highest score: uint8 (int64 above 256 classes) [B, h, w] from [B, C, h, w]."""
    best = scores.max(1).indices  # four times faster on CPUs than argmax over this axis
    return best.to(torch.uint8) if scores.shape[1] <= 256 else best


def enlarge(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """A small class map [B, h, w] at full size, by the nearest cell; always a new tensor."""
    rows, columns = (index_map(size[i], labels.shape[1 + i], labels.device) for i in range(2))
    return labels[:, rows][:, :, columns].contiguous()
