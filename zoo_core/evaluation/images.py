"""Evaluators of text-to-image models, written against the protocol."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo_core.errors import EvaluationError, MissingDependencyError
from zoo_core.evaluation.features import FeatureSpace, feature_space
from zoo_core.evaluation.metrics import frechet_from_moments, moments, pixels
from zoo_core.evaluation.prompts import load_prompts, reference_images
from zoo_core.evaluation.runner import item_seed
from zoo_core.interfaces import Sample


class ImagePrompts:
    """Draw a prompt set; store pictures, seconds and, with a local CLIP model, the CLIP score.

    Args:
        prompts: See :func:`~zoo_core.evaluation.prompts.load_prompts`; None: eight prompts for a first look.
        images_per_prompt: Pictures per prompt (GenEval: 4).
        layout: ``flat`` (``images/<id>-<k>.png``) or ``geneval`` (``<id>/samples/0000.png`` beside ``metadata.jsonl``: what GenEval's own scorer reads).
        clip: Folder of a CLIP model in transformers' layout; adds ``clip-score`` = 100 x cosine of picture and prompt, at least 0.
        batch: Prompts per call of the model.
        height, width, steps, guidance: Given to ``generate`` when set.

    Every picture has a seed of its own, derived from the run's seed, the prompt's id and the picture's number, so neither batches nor interruptions change it.
    """

    def __init__(
        self,
        prompts: str | None = None,
        images_per_prompt: int = 1,
        layout: str = "flat",
        clip: str | None = None,
        batch: int = 1,
        height: int | None = None,
        width: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> None:
        if layout not in ("flat", "geneval"):
            raise EvaluationError(f"layout={layout!r} is unknown", fix="layout=flat or layout=geneval")
        if images_per_prompt < 1 or batch < 1:
            raise EvaluationError("images_per_prompt and batch must be at least 1")
        self.prompts, self.images_per_prompt, self.layout, self.batch = prompts, images_per_prompt, layout, batch
        self.settings = {key: value for key, value in (("height", height), ("width", width), ("steps", steps), ("guidance", guidance)) if value is not None}
        self.clip = _Clip(clip) if clip else None
        self.notes: list[str] = [] if prompts else ["built-in sample of eight prompts: a first look, not a benchmark"]

    def items(self, limit: int | None = None) -> Sequence[Mapping[str, Any]]:
        return load_prompts(self.prompts)[:limit]

    def generate(self, model: Any, items: Sequence[Mapping[str, Any]], folder: Path, *, seed: int) -> Iterator[Sample]:
        import torch

        for start in range(0, len(items), self.batch):
            chunk = items[start : start + self.batch]
            texts = [item["prompt"] for item in chunk for _ in range(self.images_per_prompt)]
            seeds = [item_seed(seed, f"{item['id']}#{k}") for item in chunk for k in range(self.images_per_prompt)]
            generators = [torch.Generator().manual_seed(value) for value in seeds]
            result = model.generate(texts, generator=generators, **self.settings)
            if len(result.images) != len(texts):
                raise EvaluationError(f"model {model.name!r} returned {len(result.images)} pictures for {len(texts)} prompts")
            seconds = sum(result.seconds.values()) / len(texts) if result.seconds else None
            for index, item in enumerate(chunk):
                files = {}
                for k in range(self.images_per_prompt):
                    name = self._place(item, k, folder)
                    result.images[index * self.images_per_prompt + k].save(folder / name)
                    files[f"image{k}"] = name
                outputs = {"seconds": seconds, "seeds": seeds[index * self.images_per_prompt : (index + 1) * self.images_per_prompt]}
                yield Sample(id=item["id"], inputs=dict(item), outputs=outputs, files=files)

    def _place(self, item: Mapping[str, Any], k: int, folder: Path) -> str:
        identity = str(item["id"])
        safe = identity if identity.replace("-", "").replace("_", "").isalnum() and len(identity) < 100 else hashlib.sha256(identity.encode()).hexdigest()[:24]
        if self.layout == "flat":
            (folder / "images").mkdir(exist_ok=True)
            return f"images/{safe}-{k}.png"
        target = folder / "geneval" / safe
        (target / "samples").mkdir(parents=True, exist_ok=True)
        metadata = {key: value for key, value in item.items() if key != "id"}
        (target / "metadata.jsonl").write_text(json.dumps(metadata), encoding="utf-8")
        return f"geneval/{safe}/samples/{k:04d}.png"

    def score(self, samples: Sequence[Sample], folder: Path) -> Sequence[Sample]:
        for sample in samples:
            scores: dict[str, Any] = {}
            if sample.outputs.get("seconds") is not None:
                scores["seconds-per-image"] = float(sample.outputs["seconds"])
            if self.clip is not None:
                pictures = [Image.open(folder / name).convert("RGB") for name in sample.files.values()]
                scores["clip-score"] = self.clip(pictures, sample.inputs["prompt"])
            sample.scores = scores
        return samples

    def aggregate(self, samples: Sequence[Sample], folder: Path) -> Mapping[str, float]:
        names = sorted({name for sample in samples for name in sample.scores})
        return {name: float(np.mean([s.scores[name] for s in samples if s.scores.get(name) is not None])) for name in names}


class ImageFrechet(ImagePrompts):
    """Fréchet distance between drawn and reference pictures (``fid`` in Inception space, ``fd-<space>`` in any other), and what :class:`ImagePrompts` measures.

    Args:
        reference: Folder of pictures (MJHQ-30K's layout is known), or an ``.npz`` with ``mu`` and ``sigma`` of the same feature space.
        features, weights, device: See :func:`~zoo_core.evaluation.features.feature_space`.
    """

    def __init__(
        self,
        reference: str | None = None,
        features: str = "inception",
        weights: str | None = None,
        device: str = "cpu",
        feature_batch: int = 32,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not reference:
            raise EvaluationError("a Fréchet distance needs reference pictures", fix="reference=FOLDER or statistics.npz")
        self.space = feature_space(features, weights, device)
        self.better = {self.space.metric: "lower"}
        self.reference, self.feature_batch = reference, feature_batch

    def aggregate(self, samples: Sequence[Sample], folder: Path) -> Mapping[str, float]:
        drawn = extract_files(self.space, [folder / name for sample in samples for name in sample.files.values()], self.feature_batch)
        mean, covariance = reference_moments(self.space, self.reference, self.feature_batch)
        if mean.shape[0] != drawn.shape[1]:
            raise EvaluationError(f"{self.reference} has {mean.shape[0]}-d statistics, {self.space.name} features are {drawn.shape[1]}-d")
        self.notes = [*self.notes, f"{self.space.metric}: {self.space.description}; {len(drawn)} drawn pictures"]
        if len(drawn) <= drawn.shape[1]:
            self.notes.append(f"{len(drawn)} pictures for {drawn.shape[1]} dimensions: the covariance is singular, the distance is biased upwards")
        return {**super().aggregate(samples, folder), self.space.metric: frechet_from_moments(*moments(drawn), mean, covariance)}


def extract_files(space: FeatureSpace, files: Sequence[Path], batch: int) -> np.ndarray:
    """Features [N, D] of picture files; pictures of different sizes may be mixed."""
    rows: list[np.ndarray] = []
    for start in range(0, len(files), batch):
        pictures = [Image.open(path).convert("RGB") for path in files[start : start + batch]]
        same = len({picture.size for picture in pictures}) == 1
        for group in [pictures] if same else [[picture] for picture in pictures]:
            rows.append(space.extract(pixels(group)).double().numpy())
    return np.concatenate(rows)


def reference_moments(space: FeatureSpace, reference: str, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance from an ``.npz`` (``mu``, ``sigma``) or from a folder of pictures."""
    if str(reference).endswith(".npz"):
        try:
            with np.load(reference, allow_pickle=False) as data:
                return data["mu"].astype(np.float64), data["sigma"].astype(np.float64)
        except (OSError, KeyError, ValueError) as error:
            raise EvaluationError(f"statistics {reference} cannot be read: {error}", fix="an .npz with the arrays mu and sigma") from error
    return moments(extract_files(space, reference_images(reference), batch))


class _Clip:
    """100 x cosine between CLIP's picture and text embeddings, at least 0, averaged over pictures."""

    def __init__(self, folder: str) -> None:
        if not Path(folder).is_dir():
            raise EvaluationError(f"clip={folder}: no such folder", fix="clip=FOLDER of a CLIP model in transformers' layout")
        try:
            from transformers import AutoProcessor, CLIPModel
        except ImportError as error:
            raise MissingDependencyError("the CLIP score needs the package transformers", fix="pip install transformers") from error
        clip: Any = CLIPModel
        self.model = clip.from_pretrained(folder, local_files_only=True)
        self.model.eval()
        processor: Any = AutoProcessor
        self.processor = processor.from_pretrained(folder, local_files_only=True)

    def __call__(self, pictures: list[Image.Image], text: str) -> float:
        import torch

        inputs = self.processor(text=[text], images=pictures, return_tensors="pt", padding=True, truncation=True)
        with torch.no_grad():
            output = self.model(**inputs)
        cosine = torch.nn.functional.cosine_similarity(output.image_embeds, output.text_embeds)
        return float((100.0 * cosine).clamp(min=0).mean())
