"""Few-step sampling of continuous-time consistency models in TrigFlow (sCM, arXiv 2410.11081; SANA-Sprint, arXiv 2503.09641).

TrigFlow: ``x_a = cos(a) data + sin(a) sigma_data noise`` with angle a in [0, pi/2].  A step predicts the data, ``cos(a) x - sin(a) f``, and adds
fresh noise at the next
angle.  The network is a rectified-flow network with time ``t = sin a / (sin a + cos a)`` in [0, 1]; its velocity ``v`` at the rescaled input ``y`` becomes

    f = sigma_data * ((1 - 2t) y + (1 - 2t + 2t^2) v) / sqrt(t^2 + (1 - t)^2),     y = (x / sigma_data) sqrt(t^2 + (1 - t)^2)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from zoo_core.errors import InputError

if TYPE_CHECKING:
    import torch

MAX_ANGLE = 1.57080


def angles(steps: int, intermediate: float | None = 1.3) -> list[float]:
    """``steps + 1`` angles: two steps use the intermediate angle, other numbers are evenly spaced.

    >>> angles(2)
    [1.5708, 1.3, 0.0]
    """
    if steps < 1:
        raise InputError(f"{steps} sampling steps", fix="steps between 1 and 4")
    if steps == 2 and intermediate is not None:
        if not 0 < intermediate < MAX_ANGLE:
            raise InputError(f"intermediate angle {intermediate}", fix=f"between 0 and {MAX_ANGLE}")
        return [MAX_ANGLE, intermediate, 0.0]
    return [MAX_ANGLE * (1 - k / steps) for k in range(steps + 1)]


class SCM:
    """Sampler: makes :class:`SCMPlan` objects.

    Args:
        sigma_data: Standard deviation of the data in the model's scale.
        intermediate: Middle angle of a two-step run.
    """

    def __init__(self, sigma_data: float = 0.5, intermediate: float | None = 1.3) -> None:
        self.sigma_data, self.intermediate = sigma_data, intermediate

    def plan(self, steps: int, *, device: Any = None, start_at: float | None = None, angles: Sequence[float] | None = None, **_: Any) -> SCMPlan:
        if start_at is not None:
            raise InputError("few-step consistency sampling has no start in the middle", fix="leave image and strength out, or use a many-step model")
        from zoo_core.samplers import scm

        return SCMPlan(list(angles) if angles is not None else scm.angles(steps, self.intermediate), self.sigma_data, device)

    def add_noise(self, data: torch.Tensor, noise: torch.Tensor, start_at: float) -> torch.Tensor:
        """``cos(a) data + sin(a) sigma_data noise`` with ``a = start_at * pi / 2``."""
        angle = start_at * math.pi / 2
        return math.cos(angle) * data + math.sin(angle) * self.sigma_data * noise


class SCMPlan:
    """One run; times are kept in float32 (small differences of times matter)."""

    def __init__(self, grid: list[float], sigma_data: float, device: Any) -> None:
        import torch

        if len(grid) < 2 or any(a <= b for a, b in pairwise(grid)):
            raise InputError(f"angles {grid} are not a decreasing list", fix="[1.5708, 1.3, 0.0]")
        self.angles, self.sigma_data = grid, sigma_data
        self.evaluations = len(grid) - 1
        self.start_sigma = 1.0
        self._t = [math.sin(a) / (math.sin(a) + math.cos(a)) for a in grid[:-1]]
        self._times = torch.tensor(self._t, dtype=torch.float32, device=device)

    def start(self, noise: torch.Tensor) -> torch.Tensor:
        return self.sigma_data * noise

    def model_input(self, x: torch.Tensor, i: int) -> torch.Tensor:
        t = self._t[i]
        return x * (math.sqrt(t * t + (1 - t) ** 2) / self.sigma_data)

    def model_time(self, i: int) -> torch.Tensor:
        return self._times[i]

    def needs_noise(self, i: int) -> bool:
        return self.angles[i + 1] > 0

    def trigflow(self, x: torch.Tensor, output: torch.Tensor, i: int) -> torch.Tensor:
        """The network's velocity as TrigFlow's ``f``."""
        t = self._t[i]
        norm = math.sqrt(t * t + (1 - t) ** 2)
        return self.sigma_data * ((1 - 2 * t) * self.model_input(x, i) + (1 - 2 * t + 2 * t * t) * output) / norm

    def denoised(self, x: torch.Tensor, f: torch.Tensor, i: int) -> torch.Tensor:
        """Predicted data ``cos(a) x - sin(a) f``."""
        return math.cos(self.angles[i]) * x - math.sin(self.angles[i]) * f

    def renoise(self, data: torch.Tensor, i: int, noise: torch.Tensor | None) -> torch.Tensor:
        """State at the next angle (the data itself at angle 0)."""
        angle = self.angles[i + 1]
        if angle == 0:
            return data
        if noise is None:
            raise InputError(f"step {i} of the sampler needs fresh noise", fix="pass noise=torch.randn_like(x) where plan.needs_noise(i)")
        return math.cos(angle) * data + (math.sin(angle) * self.sigma_data) * noise

    def advance(self, x: torch.Tensor, output: torch.Tensor, i: int, noise: torch.Tensor | None = None) -> torch.Tensor:
        return self.renoise(self.denoised(x, self.trigflow(x, output, i), i), i, noise)

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        return x / self.sigma_data
