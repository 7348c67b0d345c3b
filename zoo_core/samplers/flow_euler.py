"""Euler steps on a rectified flow: ``x' = x + (s' - s) v``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zoo_core.errors import InputError
from zoo_core.samplers.flow_dpm_solver import TRAIN_STEPS, check_sigmas, first_index

if TYPE_CHECKING:
    import torch


def euler_sigmas(steps: int, shift: float) -> list[float]:
    """Shifted grid between the largest and the smallest *shifted* training level, shifted again, and a final 0.

    The grid is linear in the training steps 1000 ... 1000 * (shifted 0.001), then shifted: the smallest level is shifted twice, as the published
    scheduler does.

    >>> [round(s, 4) for s in euler_sigmas(2, 1.0)]
    [1.0, 0.001, 0.0]
    """
    if steps < 1:
        raise InputError(f"{steps} sampling steps", fix="steps >= 1")

    def move(s: float) -> float:
        return shift * s / (1 + (shift - 1) * s)

    high, low = move(1.0), move(1 / TRAIN_STEPS)
    grid = [high + (low - high) * k / (steps - 1) for k in range(steps)] if steps > 1 else [high]
    return [*(move(s) for s in grid), 0.0]


class FlowEuler:
    """Sampler: makes :class:`FlowEulerPlan` objects; ``shift`` as in Flow-DPM-Solver++."""

    def __init__(self, shift: float = 3.0) -> None:
        if shift <= 0:
            raise InputError(f"flow shift {shift}", fix="a number > 0, e.g. 3.0")
        self.shift = shift

    def plan(self, steps: int, *, device: Any = None, start_at: float | None = None, sigmas: Sequence[float] | None = None, **_: Any) -> FlowEulerPlan:
        grid = euler_sigmas(steps, self.shift) if sigmas is None else check_sigmas(sigmas)
        return FlowEulerPlan(grid[first_index(len(grid) - 1, start_at) :], device)

    def add_noise(self, data: torch.Tensor, noise: torch.Tensor, start_at: float) -> torch.Tensor:
        return (1 - start_at) * data + start_at * noise


class FlowEulerPlan:
    """One run."""

    def __init__(self, sigmas: list[float], device: Any) -> None:
        import torch

        self.sigmas = sigmas
        self.evaluations = len(sigmas) - 1
        self.start_sigma = sigmas[0]
        self.timesteps = torch.tensor([TRAIN_STEPS * s for s in sigmas[:-1]], dtype=torch.float32)
        self._times = self.timesteps.to(device)

    def start(self, noise: torch.Tensor) -> torch.Tensor:
        return noise

    def model_input(self, x: torch.Tensor, i: int) -> torch.Tensor:
        return x

    def model_time(self, i: int) -> torch.Tensor:
        return self._times[i]

    def needs_noise(self, i: int) -> bool:
        return False

    def advance(self, x: torch.Tensor, output: torch.Tensor, i: int, noise: torch.Tensor | None = None) -> torch.Tensor:
        return x + (self.sigmas[i + 1] - self.sigmas[i]) * output

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        return x
