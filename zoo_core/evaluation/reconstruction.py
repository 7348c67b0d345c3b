"""Reconstruction quality of image autoencoders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo_core.errors import EvaluationError
from zoo_core.evaluation.features import feature_space
from zoo_core.evaluation.images import extract_files
from zoo_core.evaluation.metrics import Lpips, frechet_distance, pixels, psnr, ssim
from zoo_core.evaluation.prompts import reference_images
from zoo_core.evaluation.provenance import sha256
from zoo_core.interfaces import Sample


class Reconstruction:
    """PSNR, SSIM and, where their weights are given, LPIPS and rFID of ``model.reconstruct`` on a folder of pictures.

    Pictures are resized (short side) and centre-cropped to ``size`` and compared as uint8: PSNR in dB with peak 255, averaged over pictures; SSIM with data
    range 255.

    Args:
        images: Folder of pictures.
        size: Side in pixels; 0 keeps every picture as it is.
        lpips: Also LPIPS (needs AlexNet's weights in torch hub's folder).
        features, weights, device: Feature space for the Fréchet distance (``inception`` gives ``rfid``, others ``rfd-<space>``); none when empty.
        batch: Pictures per call of the model (only pictures of one size share a call).
    """

    def __init__(
        self,
        images: str | None = None,
        size: int = 256,
        lpips: bool = False,
        features: str = "",
        weights: str | None = None,
        device: str = "cpu",
        batch: int = 1,
    ) -> None:
        if not images:
            raise EvaluationError("reconstruction needs pictures", fix="images=FOLDER")
        if size < 0 or batch < 1:
            raise EvaluationError("size must be at least 0 and batch at least 1")
        self.images, self.size, self.batch = Path(images), size, batch
        self.lpips = Lpips() if lpips else None
        self.space = feature_space(features, weights, device) if features else None
        self.better = {f"r{self.space.metric}": "lower"} if self.space else {}
        self.notes: list[str] = []

    def items(self, limit: int | None = None) -> Sequence[Mapping[str, Any]]:
        found = reference_images(self.images)[:limit]
        return [{"id": path.relative_to(self.images).as_posix(), "sha256": sha256(path)} for path in found]

    def generate(self, model: Any, items: Sequence[Mapping[str, Any]], folder: Path, *, seed: int) -> Iterator[Sample]:
        (folder / "images").mkdir(exist_ok=True)
        groups: list[list[tuple[str, Image.Image]]] = []
        for item in items:
            picture = self._prepare(self.images / item["id"])
            if groups and len(groups[-1]) < self.batch and groups[-1][0][1].size == picture.size:
                groups[-1].append((item["id"], picture))
            else:
                if groups:
                    yield from self._reconstruct(model, groups.pop(), folder)
                groups.append([(item["id"], picture)])
        for group in groups:
            yield from self._reconstruct(model, group, folder)

    def _reconstruct(self, model: Any, group: list[tuple[str, Image.Image]], folder: Path) -> Iterator[Sample]:
        result = model.reconstruct([picture for _, picture in group])
        for (identity, picture), rebuilt in zip(group, result.images, strict=True):
            if rebuilt.size != picture.size:
                raise EvaluationError(f"model {model.name!r} turned {picture.size} pixels into {rebuilt.size}")
            stem = identity.replace("/", "__")
            files = {"original": f"images/{stem}.original.png", "reconstruction": f"images/{stem}.reconstruction.png"}
            picture.save(folder / files["original"])
            rebuilt.convert("RGB").save(folder / files["reconstruction"])
            yield Sample(id=identity, inputs={"width": picture.width, "height": picture.height}, files=files)

    def _prepare(self, path: Path) -> Image.Image:
        try:
            picture = Image.open(path).convert("RGB")
        except OSError as error:
            raise EvaluationError(f"picture {path} cannot be read: {error}", fix="remove or repair it") from error
        if not self.size:
            return picture
        scale = self.size / min(picture.size)
        resized = picture.resize((max(self.size, round(picture.width * scale)), max(self.size, round(picture.height * scale))), Image.Resampling.BICUBIC)
        left, top = (resized.width - self.size) // 2, (resized.height - self.size) // 2
        return resized.crop((left, top, left + self.size, top + self.size))

    def score(self, samples: Sequence[Sample], folder: Path) -> Sequence[Sample]:
        for sample in samples:
            original, rebuilt = (pixels(Image.open(folder / sample.files[name])) for name in ("original", "reconstruction"))
            scores = {"psnr": psnr(original, rebuilt)[0], "ssim": ssim(original, rebuilt)[0]}
            if self.lpips is not None:
                scores["lpips"] = self.lpips(original, rebuilt)[0]
            sample.scores = scores
        return samples

    def aggregate(self, samples: Sequence[Sample], folder: Path) -> Mapping[str, float]:
        names = sorted({name for sample in samples for name in sample.scores})
        metrics = {name: float(np.mean([sample.scores[name] for sample in samples])) for name in names}
        if self.space is not None and len(samples) > 1:
            sets = [extract_files(self.space, [folder / s.files[name] for s in samples], 32) for name in ("original", "reconstruction")]
            metrics[f"r{self.space.metric}"] = frechet_distance(*sets)
            self.notes = [f"r{self.space.metric}: {self.space.description}; {len(samples)} pictures"]
        return metrics
