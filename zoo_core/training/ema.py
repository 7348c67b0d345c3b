"""Exponential moving average of weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class Ema:
    """Float32 averages of all floating-point parameters of ``modules``; buffers are copied.

    Args:
        modules: Name -> module.
        decay: Final decay; at update t (from 0) it is ``min(decay, (1 + t) / (10 + t))``.

    Works on sharded parameters (each process averages its shard).
    """

    def __init__(self, modules: Mapping[str, nn.Module], decay: float) -> None:
        self.modules = dict(modules)
        self.decay = decay
        self.updates = 0
        with torch.no_grad():
            self.shadow = {key: _wide(value.detach().clone()) for key, value in self._live()}

    def _live(self) -> Iterator[tuple[str, Tensor]]:
        for name, module in self.modules.items():
            for key, value in module.state_dict().items():
                yield f"{name}/{key}", value

    @torch.no_grad()
    def update(self) -> None:
        """Take the current weights into the average."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        shadows, values = [], []
        for key, value in self._live():
            if value.is_floating_point():
                shadows.append(self.shadow[key])
                values.append(value.detach().to(self.shadow[key].dtype))
            else:
                self.shadow[key].copy_(value)
        if shadows:
            torch._foreach_lerp_(shadows, values, 1.0 - decay)

    @torch.no_grad()
    def copy_to(self) -> None:
        """Overwrite the modules with the averages."""
        for key, value in self._live():
            value.copy_(self.shadow[key])

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the modules hold the averaged weights."""
        with torch.no_grad():
            kept = {key: value.detach().clone() for key, value in self._live()}
        self.copy_to()
        try:
            yield
        finally:
            with torch.no_grad():
                for key, value in self._live():
                    value.copy_(kept[key])

    def of(self, name: str) -> dict[str, Tensor]:
        """State dict (float32) of the module ``name``."""
        prefix = f"{name}/"
        return {key.removeprefix(prefix): value for key, value in self.shadow.items() if key.startswith(prefix)}


def _wide(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value
