"""Dense models that look at the small picture, behind one interface.

A baseline is an ``nn.Module`` with ``network`` (whose keys are the published ones, after the key map of :func:`keymap_for`) and
``forward(image [B, 3, h, w] normalised) -> logits [B, C, h, w]`` at the size of its input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from zoo_core.checkpoint import Drop, KeyMap
from zoo_sparse_refine.config import BaselineConfig
from zoo_sparse_refine.selection import log_scores

if TYPE_CHECKING:
    from collections.abc import Mapping


def is_mask2former(model: Mapping[str, Any]) -> bool:
    """Whether a model dictionary of mmsegmentation is a Mask2Former (built from transformers here)."""
    head = model.get("decode_head") or {}
    return str(head.get("type", "")).rpartition(".")[2] == "Mask2FormerHead"


class Baseline(nn.Module):
    """Base class: resizes to the input and turns scores into logits."""

    network: nn.Module

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__()
        self.config = config

    def raw(self, image: Tensor) -> Tensor:
        """What the network itself gives: [B, C, h', w']."""
        raise NotImplementedError

    def scores(self, image: Tensor) -> Tensor:
        """Class scores [B, C, h, w] at the size of ``image`` [B, 3, h, w] (bilinear, align_corners False); logits, or Mask2Former's sums of probabilities."""
        out = self.raw(image).float()
        size = image.shape[2:]
        return out if out.shape[2:] == size else F.interpolate(out, size=size, mode="bilinear", align_corners=False)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [B, C, h, w]; scores that are not normalised become ln(max(score, 1e-10))."""
        scores = self.scores(image)
        return log_scores(scores) if self.config.scores == "probabilities" else scores


def build_baseline(config: BaselineConfig, num_classes: int) -> Baseline:
    """The network of a configuration (build it below ``torch.device("meta")`` to load weights into it).

    Raises:
        MissingDependencyError: mmsegmentation or transformers is not installed.
        ConfigError: The configuration names no known model.
    """
    if config.kind == "transformers":
        from zoo_sparse_refine.baselines.transformers_models import TransformersBaseline

        return TransformersBaseline(config, num_classes)
    from zoo_sparse_refine.baselines.mmseg_models import MMSegBaseline, model_dictionary

    model = model_dictionary(config, num_classes)
    if is_mask2former(model):
        from zoo_sparse_refine.baselines.mask2former import Mask2FormerBaseline

        return Mask2FormerBaseline(config, model)
    return MMSegBaseline(config, model)


def keymap_for(baseline: Baseline) -> KeyMap:
    """Published keys -> keys of ``baseline.network``."""
    extra = getattr(baseline, "keymap_steps", None)
    return KeyMap([Drop("data_preprocessor.{x*}", "means and deviations are applied before"), *(extra() if extra else [])])
