"""The handle: ``segment(picture)`` for any size, with timings, latency report and per-class report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zoo_core.errors import ConfigError, InputError
from zoo_core.interfaces.model import Model, SegmentationResult
from zoo_core.usage import open_picture
from zoo_sparse_refine.pipeline import SparseRefineNetwork

if TYPE_CHECKING:
    from PIL.Image import Image

    from zoo_core.interfaces.weights import LoadReport
    from zoo_core.specs import ModelSpec
    from zoo_sparse_refine.config import SparseRefineConfig


class SparseRefine(Model):
    """Dense baseline and sparse refiner as the task protocol ``SemanticSegmenter``.

    Attributes:
        classes: Names, in order of the label numbers.
        palette: A colour for each.
        refines: Whether the refiner has weights (none was ever published: dense checkpoints alone segment without it).
    """

    def __init__(
        self, spec: ModelSpec, config: SparseRefineConfig, network: SparseRefineNetwork, report: LoadReport | None = None, *, refines: bool = True
    ) -> None:
        super().__init__(spec, config, {"network": network}, report)
        count = config.refiner.num_classes
        self.classes: list[str] = list(config.classes) or [f"class {i}" for i in range(count)]
        self.palette: list[tuple[int, int, int]] = [tuple(colour) for colour in config.palette] or default_palette(count)  # type: ignore[misc]
        self.refines = refines

    def modules(self) -> Iterator[tuple[str, torch.nn.Module]]:
        """``baseline`` and ``refiner``: each has weights of its own."""
        yield "baseline", self.network.baseline.network
        yield "refiner", self.network.refiner

    @property
    def network(self) -> SparseRefineNetwork:
        """The module."""
        return self.components["network"]

    @torch.inference_mode()
    def segment(
        self,
        images: Image | str | Sequence[Image | str],
        *,
        refine: bool | None = None,
        threshold: float | None = None,
        top_k: float | None = None,
        budget: int | None = None,
        scores: bool = False,
        progress: bool = False,
        **unknown: Any,
    ) -> SegmentationResult:
        """A class per pixel.

        Pictures are taken one by one, so a result never depends on what else is in the list.

        Args:
            images: Pictures (any mode, upright or EXIF-rotated) or paths.
            refine: Whether uncertain pixels are refined; default: when the refiner has weights.
            threshold: Entropy in nats above which a pixel is refined (default: the configuration's).
            top_k: Instead: this share of the pixels, the most uncertain ones.
            budget: At most this many pixels of those above the threshold.
            scores: Also return the coarse scores [classes, h, w].
            progress: A bar over the pictures.

        Returns:
            ``labels`` uint8 [H, W] per picture; ``seconds`` per part, summed; ``info``: ``refined_share`` and ``milliseconds`` per picture.

        Raises:
            InputError: No picture, not a picture, a bad option, or refinement asked for without weights.
        """
        if unknown:
            raise InputError(f"segment does not know the option {next(iter(unknown))!r}", fix="known: refine, threshold, top_k, budget, scores, progress")
        given = [images] if not isinstance(images, (list, tuple)) else list(images)
        if not given:
            raise InputError("no picture was given", fix="give a picture, a path, or a list of them")
        refine = self._refine(refine)
        result = SegmentationResult([], [] if scores else None, info={"refined_share": [], "milliseconds": []})
        for item in self._shown(given, progress):
            out = self.network(self._pixels(item), refine=refine, threshold=threshold, top_k=top_k, budget=budget)
            result.labels.append(out.labels[0].cpu().numpy())
            if result.scores is not None:
                result.scores.append(out.scores[0].float().cpu().numpy())
            result.info["refined_share"].append(out.refined.selection.share if out.refined else 0.0)
            result.info["milliseconds"].append(out.milliseconds)
            for name, value in out.milliseconds.items():
                result.seconds[name] = result.seconds.get(name, 0.0) + value / 1000
        return result

    def _refine(self, refine: bool | None) -> bool:
        if refine and not self.refines:
            raise InputError(
                f"{self.name} was loaded without weights of the refiner (none was published)",
                fix="zoo train sparse-refine/refiner, then zoo.load(..., refiner=PATH); or refine=False",
            )
        return self.refines if refine is None else refine

    def _pixels(self, item: Any) -> torch.Tensor:
        from PIL.Image import Image as PictureType

        if not isinstance(item, (str, PictureType)) and not hasattr(item, "__fspath__"):
            raise InputError(f"{type(item).__name__} is not a picture", fix="give a PIL picture or a path")
        array = np.asarray(open_picture(item), dtype=np.uint8)
        if min(array.shape[:2]) < 1:
            raise InputError("the picture is empty", fix="give another one")
        return torch.from_numpy(array.copy()).to(self.device).permute(2, 0, 1)[None].to(torch.float32)

    @staticmethod
    def _shown(items: list[Any], progress: bool) -> Any:
        if not progress:
            return items
        from rich.progress import track

        return track(items, description="pictures")

    def latency(self, images: Sequence[Image | str], *, repeats: int = 5, warmup: int = 1, **options: Any) -> dict[str, Any]:
        """Milliseconds per picture and part: median and 95th percentile over all pictures and repeats, with the share of refined pixels.

        The time of the refiner depends on what a picture shows, so the percentiles and the share belong to the number.

        Args:
            images: Pictures.
            repeats: Runs of each.
            warmup: Runs before that are not counted.
            options: Of :meth:`segment`.
        """
        rows: list[dict[str, float]] = []
        shares: list[float] = []
        for number in range(warmup + repeats):
            info = self.segment(images, **options).info
            if number >= warmup:
                rows += info["milliseconds"]
                shares += info["refined_share"]
        totals = [sum(row.values()) for row in rows]
        parts = {name: [row[name] for row in rows] for name in rows[0]} | {"total": totals}
        return {
            "parts": {name: {"p50_ms": float(np.percentile(v, 50)), "p95_ms": float(np.percentile(v, 95))} for name, v in parts.items()},
            "refined_share": {"mean": float(np.mean(shares)), "p95": float(np.percentile(shares, 95))},
            "runs": len(rows),
        }

    def class_shares(self, labels: np.ndarray) -> dict[str, float]:
        """Share of the pixels of each class in a label map (classes that occur, largest first)."""
        counts = np.bincount(labels.reshape(-1), minlength=256)[: len(self.classes)]
        order = np.argsort(-counts)
        return {self.classes[i]: float(counts[i] / max(1, labels.size)) for i in order if counts[i]}

    def to(self, device: Any = None, dtype: Any = None) -> SparseRefine:
        """Move to a device; kernels are chosen again.  Only float32 is supported (entropies and sums over points need it)."""
        if dtype is not None and dtype != torch.float32:
            raise ConfigError(f"{self.name} runs in float32, not {dtype}", fix="leave dtype out")
        super().to(device)
        from zoo_sparse_refine.loading import bind

        bind(self.network)
        return self


def default_palette(count: int) -> list[tuple[int, int, int]]:
    """Distinct colours: hues by the golden ratio.

    >>> len(set(default_palette(19)))
    19
    """
    import colorsys

    colours = (colorsys.hsv_to_rgb((i * 0.61803) % 1.0, 0.65 + 0.3 * (i % 2), 0.95 - 0.25 * (i % 3)) for i in range(count))
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in colours]
