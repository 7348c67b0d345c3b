"""CAME, from the package ``pytorch-optimizer``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from zoo_core.errors import MissingDependencyError


def CAME(
    params: Iterable[Any],
    lr: float = 1e-4,
    betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
    eps: tuple[float, float] = (1e-30, 1e-16),
    weight_decay: float = 0.0,
    clip_threshold: float = 1.0,
) -> torch.optim.Optimizer:
    """Confidence-guided adaptive memory-efficient optimiser (Luo et al., ACL 2023, algorithm 2) with the settings of Sana's recipe as defaults.

    Its second moments are factored over the last two dimensions, so its state is little more than one momentum buffer.  It cannot update sharded
    parameters: under torchrun use ``parallel=replicate`` with it, or AdamW with ``parallel=fsdp``.

    Args:
        params: Parameters or parameter groups.
        betas: Decay of the update, of its second moment and of the instability statistic.
        eps: Added to squared gradients and to squared deviations.
        weight_decay: Decoupled.
        clip_threshold: Largest root mean square of an update.

    Raises:
        MissingDependencyError: ``pytorch-optimizer`` is not installed.
    """
    try:
        from pytorch_optimizer import CAME as Implementation
    except ImportError as error:
        raise MissingDependencyError("optimiser 'came' needs the package pytorch-optimizer", fix="pip install pytorch-optimizer, or optimiser=adamw") from error
    optimiser: torch.optim.Optimizer = Implementation(
        params, lr=lr, betas=betas, eps1=eps[0], eps2=eps[1], weight_decay=weight_decay, clip_threshold=clip_threshold
    )
    return optimiser
