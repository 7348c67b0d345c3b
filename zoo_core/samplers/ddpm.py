"""DDPM ancestral sampling with respaced time steps and fixed or learned variance (arXiv 2006.11239, 2102.09672).

Respacing keeps ``steps`` of the training steps and recomputes the betas so that the cumulative products at the kept steps stay the same.  With a learned
variance the network returns 2C channels: the noise, and ``v`` in [-1, 1] that interpolates the log variance between the posterior's (-1) and beta's (+1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zoo_core.errors import ConfigError, InputError

if TYPE_CHECKING:
    import numpy as np
    import torch

VARIANCES = ("learned-range", "fixed-small", "fixed-large")


def linear_betas(count: int = 1000) -> np.ndarray:
    """``linspace(1e-4, 2e-2)`` scaled so that any ``count`` gives the noise of 1000 steps; float64."""
    import numpy as np

    scale = 1000 / count
    return np.linspace(scale * 1e-4, scale * 2e-2, count, dtype=np.float64)


def respaced_steps(total: int, count: int) -> list[int]:
    """``count`` of ``range(total)``: first and last included, as evenly spread as whole numbers allow.

    >>> respaced_steps(10, 4), respaced_steps(1000, 250)[:4]
    ([0, 3, 6, 9], [0, 4, 8, 12])
    """
    if not 1 <= count <= total:
        raise ConfigError(f"{count} sampling steps out of {total} training steps", fix=f"give 1 to {total} steps")
    stride = (total - 1) / (count - 1) if count > 1 else 1.0
    steps, position = [], 0.0
    for _ in range(count):
        steps.append(round(position))
        position += stride
    return steps


class DDPM:
    """Sampler: makes :class:`DDPMPlan` objects.

    Args:
        betas: Variances of the training steps (default: 1000 linear ones).
        variance: ``"learned-range"`` (network output has 2C channels), ``"fixed-small"`` (posterior) or ``"fixed-large"`` (beta).
        clip_data: Clamp the predicted data to [-clip_data, clip_data] (None: do not).
    """

    def __init__(self, betas: Sequence[float] | np.ndarray | None = None, *, variance: str = "learned-range", clip_data: float | None = None) -> None:
        import numpy as np

        if variance not in VARIANCES:
            raise ConfigError(f"variance {variance!r} is unknown", fix=f"choose from {', '.join(VARIANCES)}")
        self.betas = linear_betas() if betas is None else np.asarray(betas, dtype=np.float64)
        self.alphas_cumprod = np.cumprod(1.0 - self.betas)
        self.variance = variance
        self.clip_data = clip_data

    def plan(self, steps: int, *, device: Any = None, start_at: float | None = None, **options: Any) -> DDPMPlan:
        """A plan of ``steps`` evaluations over the whole chain; with ``start_at`` < 1 only the last part of it is run."""
        kept = respaced_steps(len(self.betas), steps)
        first = steps if start_at is None else max(1, round(start_at * steps))
        return DDPMPlan(self, kept, first, device)

    def add_noise(self, data: torch.Tensor, noise: torch.Tensor, start_at: float) -> torch.Tensor:
        """Forward process at the training step nearest to ``start_at`` (1 = last)."""
        index = max(0, round(start_at * len(self.betas)) - 1)
        alpha = float(self.alphas_cumprod[index])
        return alpha**0.5 * data + (1 - alpha) ** 0.5 * noise


class DDPMPlan:
    """One run; evaluation ``i`` is at the kept step ``evaluations - 1 - i``.

    Attributes:
        timestep_map: Training step of every kept step, ascending.
        alphas_cumprod: Their cumulative products, float64.
    """

    def __init__(self, sampler: DDPM, kept: list[int], evaluations: int, device: Any) -> None:
        import numpy as np
        import torch

        self.evaluations = evaluations
        self.timestep_map = kept
        self.alphas_cumprod = sampler.alphas_cumprod[kept]
        self.variance = sampler.variance
        self.clip_data = sampler.clip_data
        now = self.alphas_cumprod
        previous = np.append(1.0, now[:-1])
        betas = 1.0 - now / previous
        posterior = betas * (1.0 - previous) / (1.0 - now)
        # the first posterior variance is 0: its logarithm is replaced by the next one's
        clipped = np.append(posterior[1] if len(posterior) > 1 else betas[0], posterior[1:])
        self._log_small = np.log(clipped).tolist()
        self._log_large = np.log(betas).tolist()
        if self.variance == "fixed-large":
            self._log_large[0] = self._log_small[0]
        self._from_x = np.sqrt(1.0 / now).tolist()
        self._from_noise = np.sqrt(1.0 / now - 1.0).tolist()
        self._mean_data = (betas * np.sqrt(previous) / (1.0 - now)).tolist()
        self._mean_x = ((1.0 - previous) * np.sqrt(1.0 - betas) / (1.0 - now)).tolist()
        self._times = torch.tensor(kept, dtype=torch.int64).to(device)

    def _step(self, i: int) -> int:
        return self.evaluations - 1 - i

    def start(self, noise: torch.Tensor) -> torch.Tensor:
        return noise

    def model_input(self, x: torch.Tensor, i: int) -> torch.Tensor:
        return x

    def model_time(self, i: int) -> torch.Tensor:
        return self._times[self._step(i)]

    def needs_noise(self, i: int) -> bool:
        return self._step(i) > 0

    def advance(self, x: torch.Tensor, output: torch.Tensor, i: int, noise: torch.Tensor | None = None) -> torch.Tensor:
        step = self._step(i)
        if self.variance == "learned-range":
            if output.shape[1] != 2 * x.shape[1]:
                raise InputError(f"a learned variance needs {2 * x.shape[1]} output channels, got {output.shape[1]}", fix="choose variance='fixed-small'")
            output, v = output.chunk(2, dim=1)
            fraction = (v + 1) / 2
            deviation: Any = (0.5 * (fraction * self._log_large[step] + (1 - fraction) * self._log_small[step])).exp()
        else:
            log = self._log_small if self.variance == "fixed-small" else self._log_large
            deviation = float(2.718281828459045 ** (0.5 * log[step]))
        data = self._from_x[step] * x - self._from_noise[step] * output
        if self.clip_data is not None:
            data = data.clamp(-self.clip_data, self.clip_data)
        mean = self._mean_data[step] * data + self._mean_x[step] * x
        if step == 0:
            return mean
        if noise is None:
            raise InputError(f"DDPM needs fresh noise at evaluation {i}", fix="pass noise=... whenever plan.needs_noise(i)")
        return mean + deviation * noise

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        return x
