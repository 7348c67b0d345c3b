"""Evaluator of class-to-image models, written against the protocol."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo_core.errors import EvaluationError
from zoo_core.evaluation.features import feature_space
from zoo_core.evaluation.images import extract_files, reference_moments
from zoo_core.evaluation.metrics import frechet_from_moments, moments
from zoo_core.evaluation.runner import item_seed
from zoo_core.interfaces import Sample


class ClassFrechet:
    """Draws classes in turn and measures the Fréchet distance to reference pictures.

    Args:
        samples: How many pictures (papers: 50 000).
        classes: Number of classes; picture i is of class ``i % classes``.
        reference: Folder of pictures or an ``.npz`` with ``mu`` and ``sigma``; without it only pictures and seconds.
        features, weights, device: See :func:`~zoo_core.evaluation.features.feature_space`.
        steps, guidance: Given to ``generate`` when set.

    One picture per call: each has a seed of its own, so interruptions change nothing.
    """

    def __init__(
        self,
        samples: int = 64,
        classes: int = 1000,
        reference: str | None = None,
        features: str = "inception",
        weights: str | None = None,
        device: str = "cpu",
        steps: int | None = None,
        guidance: float | None = None,
    ) -> None:
        if samples < 1 or classes < 1:
            raise EvaluationError("samples and classes must be at least 1")
        self.samples, self.classes, self.reference = samples, classes, reference
        self.space = feature_space(features, weights, device) if reference else None
        self.better = {self.space.metric: "lower"} if self.space else {}
        self.settings = {key: value for key, value in (("steps", steps), ("guidance", guidance)) if value is not None}
        self.notes: list[str] = [] if reference else ["no reference pictures: nothing but speed was measured"]

    def items(self, limit: int | None = None) -> Sequence[Mapping[str, Any]]:
        return [{"id": f"{index:06d}", "label": index % self.classes} for index in range(self.samples)][:limit]

    def generate(self, model: Any, items: Sequence[Mapping[str, Any]], folder: Path, *, seed: int) -> Iterator[Sample]:
        (folder / "images").mkdir(exist_ok=True)
        for item in items:
            began = time.perf_counter()
            result = model.generate([item["label"]], seed=item_seed(seed, item["id"]) % 2**31, **self.settings)
            seconds = time.perf_counter() - began
            name = f"images/{item['id']}.png"
            result.images[0].convert("RGB").save(folder / name)
            yield Sample(id=item["id"], inputs=dict(item), outputs={"seconds": seconds}, files={"image": name})

    def score(self, samples: Sequence[Sample], folder: Path) -> Sequence[Sample]:
        for sample in samples:
            sample.scores = {"seconds-per-image": float(sample.outputs["seconds"])}
        return samples

    def aggregate(self, samples: Sequence[Sample], folder: Path) -> Mapping[str, float]:
        metrics = {"seconds-per-image": float(np.mean([sample.scores["seconds-per-image"] for sample in samples]))}
        if self.space is None or self.reference is None or len(samples) < 2:
            return metrics
        drawn = extract_files(self.space, [folder / sample.files["image"] for sample in samples], 32)
        mean, covariance = reference_moments(self.space, self.reference, 32)
        self.notes = [f"{self.space.metric}: {self.space.description}; {len(drawn)} drawn pictures"]
        if len(drawn) <= drawn.shape[1]:
            self.notes.append(f"{len(drawn)} pictures for {drawn.shape[1]} dimensions: the covariance is singular, the distance is biased upwards")
        return {**metrics, self.space.metric: frechet_from_moments(*moments(drawn), mean, covariance)}
