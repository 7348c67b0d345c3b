"""Learning-rate schedule as a pure function of the step, so that there is nothing to save."""

from __future__ import annotations

import math


def factor(step: int, *, steps: int, warmup: int = 0, schedule: str = "constant", final: float = 0.0) -> float:
    """Multiplier of the peak learning rate for the optimiser step with index ``step`` (from 0).

    >>> [factor(s, steps=10, warmup=4) for s in (0, 3, 4)]
    [0.25, 1.0, 1.0]
    >>> round(factor(9, steps=10, schedule="cosine", final=0.1), 4)
    0.1
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    progress = min((step - warmup) / max(steps - warmup - 1, 1), 1.0)
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress))
