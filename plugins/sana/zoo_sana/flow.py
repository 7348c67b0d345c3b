"""Flow matching as Sana trains it: times, noising and loss (arXiv 2410.10629, section on training; rectified flow).

``x_s = (1 - s) x + s eps`` with s in (0, 1); the network predicts ``eps - x`` and is told the time ``1000 s``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo_core.errors import InputError

TRAIN_STEPS = 1000


def logit_normal_times(
    count: int, shift: float = 3.0, *, mean: float = 0.0, std: float = 1.0, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """Flow times s [count] in (0, 1), fp32: sigmoid of a normal draw, then ``shift * s / (1 + (shift - 1) * s)``.

    Raises:
        InputError: ``shift`` or ``std`` is not positive.

    Example:
        >>> times = logit_normal_times(4, generator=torch.Generator().manual_seed(0))
        >>> bool(((times > 0) & (times < 1)).all())
        True
    """
    if shift <= 0 or std <= 0:
        raise InputError(f"shift={shift}, std={std}", fix="both > 0")
    plain = torch.sigmoid(mean + std * torch.randn(count, generator=generator, device=device))
    return shift * plain / (1 + (shift - 1) * plain)


def discrete_times(times: Tensor, shift: float = 3.0) -> tuple[Tensor, Tensor]:
    """The published models' discrete form of unshifted times u: (noise level s [B], network time [B]).

    The index ``trunc(1000 u)`` picks s from the shifted schedule and is itself what the network receives (the exact remapping upstream is an inference).
    """
    index = torch.trunc(times * TRAIN_STEPS).clamp(0, TRAIN_STEPS - 1)
    u = (index + 1) / TRAIN_STEPS
    return shift * u / (1 + (shift - 1) * u), index


def add_noise(clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """``(1 - s) x + s eps`` for latents [B, C, h, w] and times [B]."""
    s = times.to(clean.dtype).view(-1, *[1] * (clean.ndim - 1))
    return torch.lerp(clean, noise, s)


def flow_loss(velocity: Tensor, clean: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error between the predicted velocity and ``eps - x``, fp32 scalar."""
    return (velocity.float() - (noise.float() - clean.float())).square().mean()
