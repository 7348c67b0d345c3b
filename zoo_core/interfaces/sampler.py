"""Samplers: from noise to data by repeated network evaluation.

The unit is the *evaluation*, not the step: a single-step order-3 solver has three evaluations per step, a multistep solver one.  A sampler makes a
:class:`SamplingPlan` once (all tables on the device, no host synchronisation later); the caller's loop is the same for all:

    plan = sampler.plan(steps=20, device=x.device)
    x = plan.start(noise)
    for i in range(plan.evaluations):
        output = network(plan.model_input(x, i), plan.model_time(i))
        x = plan.advance(x, output, i, noise=draw() if plan.needs_noise(i) else None)
    data = plan.finish(x)

A plan keeps what a multistep or single-step method must remember (previous data predictions, intermediate states), therefore one plan serves one run.
The interface holds Flow-DPM-Solver++ (multistep), Flow-Euler, sCM/TrigFlow (fresh noise, scaled input), DDPM/iDDPM with learned variance (output with 2C
channels, fresh noise) and DPM-Solver-fast (several evaluations per step).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch


@runtime_checkable
class SamplingPlan(Protocol):
    """One run of a sampler; all tables are on the device."""

    evaluations: int
    """Number of network evaluations."""

    def start(self, noise: torch.Tensor) -> torch.Tensor:
        """State from standard normal noise (scaled where the method asks for it)."""
        ...

    def model_input(self, x: torch.Tensor, i: int) -> torch.Tensor:
        """What the network sees at evaluation ``i`` (``x`` itself for most methods)."""
        ...

    def model_time(self, i: int) -> torch.Tensor:
        """0-d tensor: the time that the network is given at evaluation ``i``."""
        ...

    def needs_noise(self, i: int) -> bool:
        """Whether ``advance`` wants fresh noise at evaluation ``i``."""
        ...

    def advance(self, x: torch.Tensor, output: torch.Tensor, i: int, noise: torch.Tensor | None = None) -> torch.Tensor:
        """State after evaluation ``i`` (for inner evaluations of a single-step method: the next state to evaluate at)."""
        ...

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        """Data from the last state."""
        ...


@runtime_checkable
class Sampler(Protocol):
    """Makes plans; holds the method's constants (shift, order, schedule)."""

    def plan(self, steps: int, *, device: Any = None, start_at: float | None = None, **options: Any) -> SamplingPlan:
        """A plan of ``steps`` steps; ``start_at`` in (0, 1] begins in the middle (image-to-image)."""
        ...

    def add_noise(self, data: torch.Tensor, noise: torch.Tensor, start_at: float) -> torch.Tensor:
        """State of the forward process at ``start_at``."""
        ...
