"""What a step function and an evaluation callback see."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from zoo_core.training.config import TrainConfig
    from zoo_core.training.ema import Ema


@dataclass(slots=True)
class TrainState:
    """The running training.

    Attributes:
        step: Optimiser steps done so far (0 in the first step function call).
        micro: Micro-batch within the step, 0 .. ``accumulate - 1``.
        generator: Random generator on the device, for noise and times; seeded per process and saved with checkpoints.
        ema: The moving average, or None.
        extra: Plain JSON data of the recipe; saved with checkpoints and restored.
        folder: Run folder, for pictures and tables of evaluations.
    """

    config: TrainConfig
    modules: Mapping[str, nn.Module]
    optimisers: Mapping[str, torch.optim.Optimizer]
    device: torch.device
    generator: torch.Generator
    folder: Path
    step: int = 0
    micro: int = 0
    ema: Ema | None = None
    rank: int = 0
    world_size: int = 1
    extra: dict[str, Any] = field(default_factory=dict)
    stop_reason: str = ""

    def stop(self, reason: str = "asked") -> None:
        """End the training after this step, with a checkpoint."""
        self.stop_reason = self.stop_reason or reason

    @contextlib.contextmanager
    def ema_weights(self) -> Iterator[None]:
        """Inside, the modules hold the averaged weights (nothing happens without EMA).  Evaluation callbacks already run like this."""
        if self.ema is None:
            yield
        else:
            with self.ema.swapped():
                yield
