"""DPM-Solver, single-step form of order 1 to 3 with the "fast" order schedule (arXiv 2206.00927, appendix D; data prediction: DPM-Solver++, arXiv 2211.01095).

A step of order k costs k network evaluations: at the step's start and at k - 1 inner times.  With ``N`` evaluations and maximum order 3 the orders
are 3, 3, ... and end with 2, 1 (``N mod 3 == 0``), 1 (``N mod 3 == 1``) or 2 (``N mod 3 == 2``).  The grid is uniform in time over all ``N``
evaluations; a step of order k spans k intervals and its inner times are grid points.

Every coefficient is computed once, in float64 on the host, when the plan is made; the loop launches only multiply-adds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo_core.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import torch

PREDICTIONS = ("epsilon", "data", "velocity")


def scaled_linear_betas(count: int = 1000, first: float = 0.00085, last: float = 0.012) -> np.ndarray:
    """``linspace(sqrt(first), sqrt(last), count)^2`` in float64 (the Stable Diffusion schedule)."""
    import numpy as np

    return np.linspace(first**0.5, last**0.5, count, dtype=np.float64) ** 2


@dataclass(frozen=True)
class DiscreteVPSchedule:
    """Variance-preserving schedule given at discrete times ``n / N``, n = 1..N, log-linear in between.

    Attributes:
        log_alpha: ``log(alpha_n) = 0.5 * sum_{i<=n} log(1 - beta_i)``, float64 [N].
    """

    log_alpha: np.ndarray

    @classmethod
    def from_betas(cls, betas: Sequence[float] | np.ndarray) -> DiscreteVPSchedule:
        import numpy as np

        return cls(0.5 * np.cumsum(np.log1p(-np.asarray(betas, dtype=np.float64))))

    def log_alpha_at(self, t: float) -> float:
        """``log(alpha_t)`` for t in [1/N, 1]."""
        import numpy as np

        count = len(self.log_alpha)
        return float(np.interp(t, np.arange(1, count + 1) / count, self.log_alpha))

    def alpha_sigma_lambda(self, t: float) -> tuple[float, float, float]:
        """``alpha_t``, ``sigma_t`` and half the log signal-to-noise ratio ``lambda_t = log(alpha_t / sigma_t)``."""
        log_alpha = self.log_alpha_at(t)
        sigma = math.sqrt(-math.expm1(2 * log_alpha))
        return math.exp(log_alpha), sigma, log_alpha - math.log(sigma)


def fast_orders(evaluations: int, order: int = 3) -> list[int]:
    """Orders of the steps of DPM-Solver-fast.

    >>> fast_orders(6), fast_orders(7), fast_orders(8), fast_orders(5, order=2)
    ([3, 2, 1], [3, 3, 1], [3, 3, 2], [2, 2, 1])
    """
    if evaluations < 1:
        raise ConfigError(f"DPM-Solver with {evaluations} evaluations", fix="give at least 1 step")
    if order == 1:
        return [1] * evaluations
    if order == 2:
        return [2] * (evaluations // 2) + [1] * (evaluations % 2)
    if order != 3:
        raise ConfigError(f"DPM-Solver of order {order}", fix="choose 1, 2 or 3")
    whole, rest = divmod(evaluations, 3)
    if rest:
        return [3] * whole + [rest]
    return [3] * (whole - 1) + [2, 1]


@dataclass(frozen=True)
class _Evaluation:
    """``next = start * x_start + first * m_first + change * (m_now - m_first)``; ``m`` are data predictions."""

    alpha: float
    sigma: float
    opens: bool
    start: float
    first: float
    change: float


class DPMSolverSinglestep:
    """Sampler: makes :class:`DPMSolverSinglestepPlan` objects.

    Args:
        schedule: Noise schedule (default: the 1000 scaled-linear betas of Stable Diffusion).
        order: Maximum order, 1 to 3.
        prediction: What the network returns: ``"epsilon"``, ``"data"`` or ``"velocity"`` (``alpha * noise - sigma * data``).
        t_start, t_end: Times between which it integrates.
        time_scale: The network is given ``time_scale * t``.

    >>> import torch
    >>> plan = DPMSolverSinglestep().plan(steps=6)
    >>> x = plan.start(torch.zeros(1, 2))
    >>> for i in range(plan.evaluations):
    ...     x = plan.advance(x, torch.zeros(1, 2), i)
    >>> plan.finish(x).tolist()
    [[0.0, 0.0]]
    """

    def __init__(
        self,
        schedule: DiscreteVPSchedule | None = None,
        *,
        order: int = 3,
        prediction: str = "epsilon",
        t_start: float = 1.0,
        t_end: float | None = None,
        time_scale: float = 1000.0,
    ) -> None:
        if prediction not in PREDICTIONS:
            raise ConfigError(f"prediction {prediction!r} is unknown", fix=f"choose from {', '.join(PREDICTIONS)}")
        fast_orders(1, order)
        self.schedule = schedule or DiscreteVPSchedule.from_betas(scaled_linear_betas())
        self.order = order
        self.prediction = prediction
        self.t_start = t_start
        self.t_end = 1.0 / len(self.schedule.log_alpha) if t_end is None else t_end
        self.time_scale = time_scale

    def plan(self, steps: int, *, device: Any = None, start_at: float | None = None, **options: Any) -> DPMSolverSinglestepPlan:
        """A plan of ``steps`` network evaluations; ``start_at`` is the time to begin at instead of ``t_start``."""
        if start_at is not None and not self.t_end < start_at <= self.t_start:
            raise ConfigError(f"start_at={start_at}", fix=f"give a time in ({self.t_end}, {self.t_start}]")
        return DPMSolverSinglestepPlan(self, steps, self.t_start if start_at is None else start_at, device)

    def add_noise(self, data: torch.Tensor, noise: torch.Tensor, start_at: float) -> torch.Tensor:
        """``alpha_t * data + sigma_t * noise`` at ``t = start_at``."""
        alpha, sigma, _ = self.schedule.alpha_sigma_lambda(start_at)
        return alpha * data + sigma * noise


class DPMSolverSinglestepPlan:
    """One run; see :class:`zoo_core.interfaces.sampler.SamplingPlan`."""

    def __init__(self, sampler: DPMSolverSinglestep, evaluations: int, t_start: float, device: Any) -> None:
        import numpy as np
        import torch

        self.evaluations = evaluations
        self.orders = fast_orders(evaluations, sampler.order)
        self.prediction = sampler.prediction
        self.grid: list[float] = np.linspace(t_start, sampler.t_end, evaluations + 1).tolist()
        self._times = torch.tensor([t * sampler.time_scale for t in self.grid[:-1]], dtype=torch.float64).to(device=device, dtype=torch.float32)
        points = [sampler.schedule.alpha_sigma_lambda(t) for t in self.grid]
        self._table: list[_Evaluation] = []
        position = 0
        for order in self.orders:
            self._table += _step(points[position : position + order + 1])
            position += order
        self._start: torch.Tensor | None = None
        self._first: torch.Tensor | None = None

    def start(self, noise: torch.Tensor) -> torch.Tensor:
        return noise

    def model_input(self, x: torch.Tensor, i: int) -> torch.Tensor:
        return x

    def model_time(self, i: int) -> torch.Tensor:
        return self._times[i]

    def needs_noise(self, i: int) -> bool:
        return False

    def advance(self, x: torch.Tensor, output: torch.Tensor, i: int, noise: torch.Tensor | None = None) -> torch.Tensor:
        row = self._table[i]
        if self.prediction == "epsilon":
            data = (x - row.sigma * output) / row.alpha
        elif self.prediction == "velocity":
            data = row.alpha * x - row.sigma * output
        else:
            data = output
        if row.opens:
            self._start, self._first = x, data
            return row.start * x + row.first * data
        assert self._start is not None and self._first is not None
        return row.start * self._start + row.first * self._first + row.change * (data - self._first)

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        return x


def _step(points: list[tuple[float, float, float]]) -> list[_Evaluation]:
    """Coefficients of one step whose grid points (start, inner..., end) have the given (alpha, sigma, lambda)."""
    (alpha_s, sigma_s, lambda_s), *inner, (alpha_t, sigma_t, lambda_t) = points
    h = lambda_t - lambda_s
    ratios = [(point[2] - lambda_s) / h for point in inner]
    targets = [*zip(inner, ratios), ((alpha_t, sigma_t, lambda_t), 1.0)]
    rows = []
    for index, ((alpha, sigma, _), r) in enumerate(targets):
        phi = math.expm1(-r * h)
        change = 0.0
        if index == 1 and len(targets) == 2:
            change = -alpha * phi / (2 * ratios[0])
        elif index >= 1:
            change = alpha * (phi / (r * h) + 1.0) * r / ratios[index - 1]
        now_alpha, now_sigma = (alpha_s, sigma_s) if index == 0 else inner[index - 1][:2]
        rows.append(_Evaluation(alpha=now_alpha, sigma=now_sigma, opens=index == 0, start=sigma / sigma_s, first=-alpha * phi, change=change))
    return rows
