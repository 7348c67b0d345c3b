"""Evaluators: generate, score, aggregate as separate, restartable steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from zoo_core.interfaces.model import Model


@dataclass(slots=True)
class Sample:
    """One evaluated item: ``id`` unique within the run, ``inputs`` and ``outputs`` plain JSON data, ``files`` names relative to the run folder."""

    id: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Evaluator(Protocol):
    """Written against a task protocol, never against a model."""

    def items(self, limit: int | None = None) -> Sequence[Mapping[str, Any]]:
        """The items; each has a unique ``"id"``.  Must be deterministic."""
        ...

    def generate(self, model: Model, items: Sequence[Mapping[str, Any]], folder: Path, *, seed: int) -> Iterable[Sample]:
        """Run the model; heavy outputs are written below ``folder`` and named in ``Sample.files``."""
        ...

    def score(self, samples: Sequence[Sample], folder: Path) -> Sequence[Sample]:
        """Fill per-sample ``scores`` from stored outputs, without the model."""
        ...

    def aggregate(self, samples: Sequence[Sample], folder: Path) -> Mapping[str, float]:
        """Metrics of the whole set.  Means of per-sample scores get bootstrap intervals from the runner."""
        ...
