"""Explicit Runge-Kutta integration of ``dx/dt = f(x, t)``: fixed steps (Euler, midpoint, Heun, RK4) and adaptive Dormand-Prince 5(4).

The fixed methods have a known number of evaluations and never wait for the device.  ``dopri5`` chooses its steps by the error estimate, as
torchdiffeq and SciPy do, so ``evaluations`` is an upper limit, one scalar is read back per step, and the loop ends when ``plan.finished``:

    for i in range(plan.evaluations):
        x = plan.advance(x, network(plan.model_input(x, i), plan.model_time(i)), i)
        if plan.finished:
            break
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo_core.errors import ConfigError, ZooError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Tableau:
    """Butcher tableau: times ``c``, rows ``a``, weights ``b``, error weights ``e`` (b minus the embedded lower order) and order."""

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    order: int
    e: tuple[float, ...] = ()


TABLEAUS = {
    "euler": Tableau((0.0,), ((),), (1.0,), 1),
    "midpoint": Tableau((0.0, 0.5), ((), (0.5,)), (0.0, 1.0), 2),
    "heun": Tableau((0.0, 1.0), ((), (1.0,)), (0.5, 0.5), 2),
    "rk4": Tableau((0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), 4),
    "dopri5": Tableau(
        (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
        (
            (),
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        ),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
        5,
        (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    ),
}


class ODESampler:
    """Sampler for flow models: integrates the network's velocity from ``t_start`` (noise) to ``t_end`` (data).

    Args:
        method: A key of :data:`TABLEAUS`.
        t_start, t_end: Integration limits; the network is given the time itself.
        rtol, atol: Tolerances of ``dopri5`` (root-mean-square norm of the local error over the whole batch).
        max_evaluations: Limit for ``dopri5``.

    >>> import torch
    >>> plan = ODESampler("rk4").plan(steps=10)
    >>> x = torch.ones(1, dtype=torch.float64)
    >>> for i in range(plan.evaluations):
    ...     x = plan.advance(x, -plan.model_input(x, i), i)
    >>> round(float(plan.finish(x)), 5)
    0.36788
    """

    def __init__(
        self, method: str = "dopri5", *, t_start: float = 0.0, t_end: float = 1.0, rtol: float = 1e-3, atol: float = 1e-6, max_evaluations: int = 6000
    ) -> None:
        if method not in TABLEAUS:
            raise ConfigError(f"integration method {method!r} is unknown", fix=f"choose from {', '.join(TABLEAUS)}")
        self.method = method
        self.t_start, self.t_end = t_start, t_end
        self.rtol, self.atol = rtol, atol
        self.max_evaluations = max_evaluations

    def plan(self, steps: int = 0, *, device: Any = None, start_at: float | None = None, **options: Any) -> FixedStepPlan | AdaptivePlan:
        """``steps`` equal steps for the fixed methods; ``dopri5`` ignores it.  ``start_at`` in (0, 1]: fraction of the interval still to go."""
        if start_at is not None and not 0 < start_at <= 1:
            raise ConfigError(f"start_at={start_at}", fix="give a number in (0, 1]")
        begin = self.t_start if start_at is None else self.t_end - start_at * (self.t_end - self.t_start)
        if self.method == "dopri5":
            return AdaptivePlan(begin, self.t_end, self.rtol, self.atol, self.max_evaluations, device)
        if steps < 1:
            raise ConfigError(f"{self.method} with {steps} steps", fix="give at least 1 step")
        return FixedStepPlan(TABLEAUS[self.method], steps, begin, self.t_end, device)

    def add_noise(self, data: torch.Tensor, noise: torch.Tensor, start_at: float) -> torch.Tensor:
        """Linear path: ``(1 - start_at) * data + start_at * noise``."""
        return (1 - start_at) * data + start_at * noise


class FixedStepPlan:
    """Equal steps; see :class:`zoo_core.interfaces.sampler.SamplingPlan`."""

    finished = False

    def __init__(self, tableau: Tableau, steps: int, begin: float, end: float, device: Any) -> None:
        import torch

        self.tableau = tableau
        self.stages = len(tableau.b)
        self.evaluations = steps * self.stages
        self.h = (end - begin) / steps
        times = [begin + (step + c) * self.h for step in range(steps) for c in tableau.c]
        self._times = torch.tensor(times, dtype=torch.float64).to(device=device, dtype=torch.float32)
        self._start: torch.Tensor | None = None
        self._slopes: list[torch.Tensor] = []

    def start(self, noise: torch.Tensor) -> torch.Tensor:
        return noise

    def model_input(self, x: torch.Tensor, i: int) -> torch.Tensor:
        return x

    def model_time(self, i: int) -> torch.Tensor:
        return self._times[i]

    def needs_noise(self, i: int) -> bool:
        return False

    def advance(self, x: torch.Tensor, output: torch.Tensor, i: int, noise: torch.Tensor | None = None) -> torch.Tensor:
        stage = i % self.stages
        if stage == 0:
            self._start, self._slopes = x, []
        assert self._start is not None
        self._slopes.append(output)
        last = stage == self.stages - 1
        return _combine(self._start, self._slopes, self.tableau.b if last else self.tableau.a[stage + 1], self.h)

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        return x


class AdaptivePlan:
    """Dormand-Prince 5(4) with local extrapolation and step-size control (Hairer, Norsett, Wanner I, section II.4).

    Evaluation 0 is at the start, evaluation 1 measures the first step size; then six evaluations per attempted step (the seventh is the next step's first).
    """

    SAFETY, SMALLEST, LARGEST = 0.9, 0.2, 10.0

    def __init__(self, begin: float, end: float, rtol: float, atol: float, max_evaluations: int, device: Any) -> None:
        self.evaluations = max_evaluations
        self.finished = begin == end
        self.accepted = self.rejected = 0
        self._t, self._end, self._rtol, self._atol = begin, end, rtol, atol
        self._sign = 1.0 if end >= begin else -1.0
        self._device = device
        self._h = 0.0
        self._phase = 0
        self._time = begin
        self._x: torch.Tensor | None = None
        self._slopes: list[torch.Tensor] = []
        self._tableau = TABLEAUS["dopri5"]

    def start(self, noise: torch.Tensor) -> torch.Tensor:
        return noise

    def model_input(self, x: torch.Tensor, i: int) -> torch.Tensor:
        return x

    def model_time(self, i: int) -> torch.Tensor:
        import torch

        return torch.tensor(self._time, dtype=torch.float64).to(device=self._device, dtype=torch.float32)

    def needs_noise(self, i: int) -> bool:
        return False

    def advance(self, x: torch.Tensor, output: torch.Tensor, i: int, noise: torch.Tensor | None = None) -> torch.Tensor:
        if self.finished:
            return x
        if i == self.evaluations - 1:
            raise ZooError(f"dopri5 did not reach t={self._end} within {self.evaluations} evaluations (t={self._t:.4f})", fix="loosen rtol and atol")
        if i == 0:
            return self._probe(x, output)
        if i == 1:
            return self._first_step(x, output)
        self._slopes.append(output)
        if len(self._slopes) < 7:
            return self._stage()
        return self._judge(x)

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        if not self.finished:
            raise ZooError(f"integration stopped at t={self._t:.4f} before t={self._end}", fix="advance until plan.finished")
        return x

    def _norm(self, value: torch.Tensor, scale: torch.Tensor) -> float:
        return float((value / scale).square().mean().sqrt())

    def _probe(self, x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        self._x, self._slopes = x, [slope]
        scale = self._atol + self._rtol * x.abs()
        size, speed = self._norm(x, scale), self._norm(slope, scale)
        self._h = 1e-6 if size < 1e-5 or speed < 1e-5 else 0.01 * size / speed
        self._h = min(self._h, abs(self._end - self._t))
        self._speed = speed
        self._time = self._t + self._sign * self._h
        return x + self._sign * self._h * slope

    def _first_step(self, x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        assert self._x is not None
        scale = self._atol + self._rtol * self._x.abs()
        bend = self._norm(slope - self._slopes[0], scale) / self._h
        largest = max(self._speed, bend)
        guess = max(1e-6, self._h * 1e-3) if largest <= 1e-15 else (0.01 / largest) ** (1 / 5)
        self._h = min(100 * self._h, guess, abs(self._end - self._t))
        return self._stage()

    def _stage(self) -> torch.Tensor:
        """State and time of the next evaluation of the current attempt."""
        assert self._x is not None
        stage = len(self._slopes)
        self._time = self._t + self._sign * self._tableau.c[stage] * self._h
        return _combine(self._x, self._slopes, self._tableau.a[stage], self._sign * self._h)

    def _judge(self, new: torch.Tensor) -> torch.Tensor:
        """``new`` is the fifth-order result (the last stage's state); accept it or try a smaller step."""
        import torch

        assert self._x is not None
        scale = self._atol + self._rtol * torch.maximum(self._x.abs(), new.abs())
        change = _combine(torch.zeros_like(new), self._slopes, self._tableau.e, self._h)
        error = self._norm(change, scale)
        if error != error:
            raise ZooError(f"dopri5 met a value that is not a number near t={self._t:.4f}", fix="check the network's output, or run in float32")
        factor = self.LARGEST if error == 0 else min(self.LARGEST, max(self.SMALLEST, self.SAFETY * error ** (-1 / 5)))
        if error <= 1:
            self.accepted += 1
            self._t = self._t + self._sign * self._h
            self._x, self._slopes = new, [self._slopes[-1]]
            if abs(self._end - self._t) <= 1e-12:
                self.finished = True
                return new
        else:
            self.rejected += 1
            factor = min(1.0, factor)
            self._slopes = self._slopes[:1]
        self._h = min(self._h * factor, abs(self._end - self._t))
        return self._stage()


def _combine(x: torch.Tensor, slopes: list[torch.Tensor], weights: tuple[float, ...], h: float) -> torch.Tensor:
    for slope, weight in zip(slopes, weights):
        if weight:
            x = x + (h * weight) * slope
    return x
