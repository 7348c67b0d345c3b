"""Flow-DPM-Solver++: second-order multistep solver in data prediction on a shifted rectified-flow schedule (arXiv 2211.01095, 2410.10629 section 3.2).

Flow convention: ``x_s = (1 - s) * data + s * noise``; the network predicts ``v = noise - data``, hence ``data = x_s - s * v``.
With ``lambda = ln((1 - s) / s)`` and ``h = lambda' - lambda`` one step is

    x' = (s' / s) x - (1 - s') (e^-h - 1) (x0 + D / 2),      D = (x0 - x0_previous) h / h_previous

with D = 0 in the first and the last step; the last step (s' = 0) returns x0 itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from zoo_core.errors import InputError

if TYPE_CHECKING:
    import torch

TRAIN_STEPS = 1000


def shifted_sigmas(steps: int, shift: float) -> list[float]:
    """Noise levels of the solver's grid, ``steps`` values from just below 1 downwards and a final 0; float64.

    >>> [round(s, 5) for s in shifted_sigmas(2, 3.0)]
    [0.99967, 0.74981, 0.0]
    """
    if steps < 1:
        raise InputError(f"{steps} sampling steps", fix="steps >= 1")
    if shift <= 0:
        raise InputError(f"flow shift {shift}", fix="a number > 0, e.g. 3.0")
    low = 1 / TRAIN_STEPS
    noise = [1 - (1 + (low - 1) * k / steps) for k in range(steps + 1)]  # 1 - u_k, from 0 to 0.999
    sigmas = [shift * r / (1 + (shift - 1) * r) for r in noise]
    return [*reversed(sigmas[1:]), 0.0]


def check_sigmas(sigmas: Sequence[float]) -> list[float]:
    """A user's own noise levels: decreasing, in (0, 1], a final 0 is added when absent."""
    values = [float(s) for s in sigmas]
    if values and values[-1] != 0:
        values.append(0.0)
    if len(values) < 2 or values[0] > 1 or any(a <= b for a, b in pairwise(values)):
        raise InputError(f"sigmas {values[:4]}... are not a decreasing list in (0, 1]", fix="sigmas=[1.0, 0.75, 0.5, 0.25]")
    return values


def first_index(steps: int, start_at: float | None) -> int:
    """Steps to skip for image-to-image: ``start_at`` in (0, 1] is the share of the grid that is run."""
    if start_at is None:
        return 0
    if not 0 < start_at <= 1:
        raise InputError(f"start_at={start_at}", fix="a number in (0, 1]")
    return steps - min(steps, max(1, int(steps * start_at)))


class FlowDPMSolver:
    """Sampler: makes :class:`FlowDPMPlan` objects.

    Args:
        shift: Time shift of the schedule (3.0 up to 2K pixels, 6.0 for 4K).
        order: 2, or 1 for plain data-prediction Euler steps in lambda.
        integer_times: Give the network ``trunc(1000 s)`` (what discrete-time networks were trained with) instead of ``1000 s``.

    Example:
        >>> import torch
        >>> plan = FlowDPMSolver(shift=3.0).plan(4)
        >>> x = plan.start(torch.ones(1, 2))
        >>> for i in range(plan.evaluations):
        ...     x = plan.advance(x, torch.ones(1, 2), i)
        >>> x = plan.finish(x)
    """

    def __init__(self, shift: float = 3.0, order: int = 2, integer_times: bool = True) -> None:
        if order not in (1, 2):
            raise InputError(f"solver order {order}", fix="order=1 or order=2")
        self.shift, self.order, self.integer_times = shift, order, integer_times

    def plan(self, steps: int, *, device: Any = None, start_at: float | None = None, sigmas: Sequence[float] | None = None, **_: Any) -> FlowDPMPlan:
        """A plan; ``sigmas`` replaces the grid."""
        grid = shifted_sigmas(steps, self.shift) if sigmas is None else check_sigmas(sigmas)
        return FlowDPMPlan(grid[first_index(len(grid) - 1, start_at) :], self.order, self.integer_times, device)

    def add_noise(self, data: torch.Tensor, noise: torch.Tensor, start_at: float) -> torch.Tensor:
        """``(1 - s) data + s noise`` with ``s = start_at`` (use ``plan.start_sigma``)."""
        return (1 - start_at) * data + start_at * noise


class FlowDPMPlan:
    """One run; coefficients are plain numbers made beforehand, so no step waits for the device."""

    def __init__(self, sigmas: list[float], order: int, integer_times: bool, device: Any) -> None:
        import torch

        self.sigmas = sigmas
        self.evaluations = len(sigmas) - 1
        self.start_sigma = sigmas[0]
        times = [math.trunc(TRAIN_STEPS * s) if integer_times else TRAIN_STEPS * s for s in sigmas[:-1]]
        self.timesteps = torch.tensor(times, dtype=torch.int64 if integer_times else torch.float32)
        self._times = self.timesteps.to(device=device, dtype=torch.float32)
        self._order = order
        self._previous: torch.Tensor | None = None
        self._steps = [self._coefficients(i) for i in range(self.evaluations)]

    def _coefficients(self, i: int) -> tuple[float, float, float]:
        """(factor of x, factor of x0, factor of x0_previous)."""

        def half_log_snr(s: float) -> float:
            return math.log((1 - s) / s) if s < 1 else -math.inf

        s, t = self.sigmas[i], self.sigmas[i + 1]
        if t == 0:
            return 0.0, 1.0, 0.0
        h = half_log_snr(t) - half_log_snr(s)
        gain = -(1 - t) * math.expm1(-h)
        if i == 0 or self._order == 1:
            return t / s, gain, 0.0
        ratio = h / (half_log_snr(s) - half_log_snr(self.sigmas[i - 1]))
        return t / s, gain * (1 + ratio / 2), -gain * ratio / 2

    def start(self, noise: torch.Tensor) -> torch.Tensor:
        return noise

    def model_input(self, x: torch.Tensor, i: int) -> torch.Tensor:
        return x

    def model_time(self, i: int) -> torch.Tensor:
        return self._times[i]

    def needs_noise(self, i: int) -> bool:
        return False

    def advance(self, x: torch.Tensor, output: torch.Tensor, i: int, noise: torch.Tensor | None = None) -> torch.Tensor:
        data = x - self.sigmas[i] * output
        keep, now, before = self._steps[i]
        result = data * now
        if keep:
            result = result + keep * x
        if before and self._previous is not None:
            result = result + before * self._previous
        self._previous = data
        return result

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        return x
