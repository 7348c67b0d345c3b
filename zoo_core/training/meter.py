"""Averages of logged scalars."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo_core.errors import TrainingError
from zoo_core.training.parallel import World


class Meter:
    """Sums scalars on their device; the host waits only when they are read."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.began = time.monotonic()

    @property
    def count(self) -> int:
        return max(self.counts.values(), default=0)

    def add(self, values: Mapping[str, Tensor]) -> None:
        for key, value in values.items():
            self.sums[key] = self.sums[key] + value if key in self.sums else value
            self.counts[key] = self.counts.get(key, 0) + 1

    def check(self, world: World, step: int) -> None:
        total = torch.stack([value.cpu().double() for value in self.sums.values()]).sum()
        if world.any(not bool(torch.isfinite(total))):
            raise TrainingError(
                f"training diverged: a scalar is not finite at step {step}; no checkpoint was written", fix="a smaller lr=, a longer warmup= or clip_grad=1"
            )

    def take(self, world: World) -> dict[str, float]:
        values = torch.stack([self.sums[key].cpu().double() / self.counts[key] for key in self.sums])
        numbers = dict(zip(self.sums, world.mean(values).tolist(), strict=True))
        numbers["seconds_per_step"] = (time.monotonic() - self.began) / self.count
        self.sums, self.counts, self.began = {}, {}, time.monotonic()
        return numbers


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors inside nested mappings, lists and tuples, moved to ``device``."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(to_device(item, device) for item in value)
    return value
