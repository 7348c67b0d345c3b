"""A stand-in for ``mmcv.ops``, so that mmsegmentation works with plain ``pip install mmcv-lite``.

mmsegmentation imports many compiled operations of mmcv, most of them guarded; the models here use two, which are written below in PyTorch.  Every other name
raises ``ModuleNotFoundError``, which is what mmsegmentation's guards expect.  Where the compiled package is installed, nothing is replaced.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

NAME = "mmcv.ops"


def point_sample(input: Any, points: Any, align_corners: bool = False, **options: Any) -> Any:
    """Bilinear samples of [N, C, H, W] at points [N, P, 2] or [N, P, Q, 2], x and y in 0..1: [N, C, P] or [N, C, P, Q]."""
    from torch.nn.functional import grid_sample

    flat = points.dim() == 3
    grid = points.unsqueeze(2) if flat else points
    out = grid_sample(input, 2 * grid - 1, align_corners=align_corners, **options)
    return out.squeeze(3) if flat else out


def sigmoid_focal_loss(input: Any, target: Any, gamma: float = 2.0, alpha: float = 0.25, weight: Any = None, reduction: str = "mean") -> Any:
    """Focal loss of [N, C] logits with class numbers [N] (C: background): -alpha (1 - p)^gamma ln p at the class, -(1 - alpha) p^gamma ln(1 - p) elsewhere."""
    from torch.nn.functional import logsigmoid, one_hot

    truth = one_hot(target.long(), input.shape[1] + 1)[:, : input.shape[1]].to(input.dtype)
    positive = alpha * (1 - input.sigmoid()) ** gamma * logsigmoid(input)
    negative = (1 - alpha) * input.sigmoid() ** gamma * logsigmoid(-input)
    loss = -(truth * positive + (1 - truth) * negative)
    if weight is not None:
        loss = loss * weight[target.long().clamp(max=len(weight) - 1)].unsqueeze(1)
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


def install() -> None:
    """Make ``import mmcv.ops`` work: the compiled package where there is one, else the stand-in."""
    if NAME in sys.modules:
        return
    try:
        import mmcv.ops  # noqa: F401
    except ImportError:
        sys.modules.pop(NAME, None)
    else:
        return
    module = ModuleType(NAME, __doc__)
    module.__spec__ = ModuleSpec(NAME, None, is_package=True)
    module.__path__ = []

    def missing(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ModuleNotFoundError(f"mmcv.ops.{name} needs the compiled package mmcv; the stand-in has point_sample and sigmoid_focal_loss only", name=NAME)

    module.__dict__.update(point_sample=point_sample, sigmoid_focal_loss=sigmoid_focal_loss, __getattr__=missing)
    sys.modules[NAME] = module
