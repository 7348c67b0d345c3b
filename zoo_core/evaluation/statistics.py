"""Confidence intervals by the bootstrap (percentile method)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Interval:
    """A statistic with the interval that covers ``confidence`` of its bootstrap distribution."""

    value: float
    low: float
    high: float
    n: int
    confidence: float = 0.95


def bootstrap(values: Sequence[float], *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Mean of ``values`` and its interval; with fewer than two values the interval is the value.

    >>> interval = bootstrap([1.0, 2.0, 3.0, 4.0])
    >>> interval.value, interval.low < 2.5 < interval.high
    (2.5, True)
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("bootstrap of no values")
    mean = float(data.mean())
    if data.size < 2:
        return Interval(mean, mean, mean, data.size, confidence)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    block = max(1, 4_000_000 // data.size)
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        means[start : start + count] = data[rng.integers(0, data.size, (count, data.size))].mean(1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(mean, float(low), float(high), data.size, confidence)


def bootstrap_statistic(
    items: Sequence[Any], statistic: Callable[[Sequence[Any]], dict[str, float]], *, resamples: int, confidence: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """Intervals of any statistic of a set (``statistic(items) -> numbers``), by computing it again on resampled sets."""
    whole = statistic(items)
    rng = np.random.default_rng(seed)
    draws: dict[str, list[float]] = {name: [] for name in whole}
    for _ in range(resamples):
        for name, value in statistic([items[i] for i in rng.integers(0, len(items), len(items))]).items():
            draws.setdefault(name, []).append(float(value))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    found = {}
    for name, value in whole.items():
        finite = [draw for draw in draws[name] if np.isfinite(draw)]
        low, high = np.quantile(finite, tails) if finite else (value, value)
        found[name] = Interval(float(value), float(low), float(high), len(items), confidence)
    return found
