"""Guidance: which branches one network call holds, and how their velocities are combined.

Branches are stacked in one batch in the order unconditional, conditional, perturbed.  ``v = u + g (c - u) + p (c - q)``; a missing branch drops its term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from zoo_core.errors import InputError


@dataclass(frozen=True)
class Guidance:
    """Settings of one run.

    Attributes:
        scale: Classifier-free guidance; 1 or less switches the unconditional branch off.
        interval: Share of the noise levels (low, high) in which it acts, as flow times in [0, 1].
        pag_scale: Perturbed-attention guidance; 0 switches its branch off.
        pag_blocks: Blocks whose linear attention is replaced by its value path in the perturbed branch.
    """

    scale: float = 4.5
    interval: tuple[float, float] = (0.0, 1.0)
    pag_scale: float = 0.0
    pag_blocks: tuple[int, ...] = ()

    def check(self, blocks: int) -> Guidance:
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise InputError(f"guidance interval {self.interval}", fix="guidance_interval=(0.0, 1.0): low < high, both in [0, 1]")
        if self.pag_scale > 0 and not self.pag_blocks:
            raise InputError("perturbed-attention guidance needs blocks", fix="pag_blocks=(8,)")
        if any(not 0 <= block < blocks for block in self.pag_blocks):
            raise InputError(f"pag_blocks={self.pag_blocks}: this transformer has blocks 0 to {blocks - 1}", fix=f"pag_blocks=({blocks // 2},)")
        return self

    def branches(self, sigma: float) -> tuple[bool, bool]:
        """(unconditional, perturbed) at flow time ``sigma``."""
        return self.scale > 1 and self.interval[0] <= sigma <= self.interval[1], self.pag_scale > 0

    def combine(self, output: Tensor, unconditional: bool, perturbed: bool) -> Tensor:
        """Velocity [B, ...] fp32 from the stacked output."""
        parts: Sequence[Tensor] = output.float().chunk(1 + unconditional + perturbed)
        conditional = parts[int(unconditional)]
        result = conditional
        if unconditional:
            result = parts[0] + self.scale * (conditional - parts[0])
        if perturbed:
            result = result + self.pag_scale * (conditional - parts[-1])
        return result
