"""``zoo eval segmentation``: mIoU, boundary IoU, pixel accuracy, per-class report and time per picture of any semantic segmenter."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from zoo_core.errors import EvaluationError
from zoo_core.interfaces import Sample
from zoo_sparse_refine.evaluation.boundary import RATIO, boundary_counts, mean_boundary_iou
from zoo_sparse_refine.metrics import class_iou, confusion, mean_iou, pixel_accuracy


class Segmentation:
    """Evaluator of the task ``semantic-segmentation``.

    Args:
        data: ``streets`` (generated), ``cityscapes``, ``bdd100k``, ``deepglobe`` or ``isic``.
        folder: The data set's folder; for ``streets`` an optional cache.
        split: ``val``, ``train``...
        count, seed, height, width: Of generated streets; seed 1 is what training holds out.
        ratio: Band of the boundary IoU, as a share of the diagonal.
        options: Passed to ``segment`` (``threshold``, ``refine``...).
    """

    def __init__(
        self,
        data: str = "streets",
        folder: str = "",
        split: str = "val",
        count: int = 24,
        seed: int = 1,
        height: int = 1024,
        width: int = 2048,
        ratio: float = RATIO,
        **options: Any,
    ) -> None:
        if data == "streets":
            from zoo_sparse_refine.data.streets import Streets

            self.data: Any = Streets(seed, count, height=height, width=width, folder=folder or None)
        else:
            from zoo_sparse_refine.data.folders import open_folder

            self.data = open_folder(data, folder, split)
        self.ratio, self.options = ratio, options
        self.notes: list[str] = []

    def items(self, limit: int | None = None) -> Sequence[Mapping[str, Any]]:
        """One per picture."""
        return [{"id": self.data.name(index), "index": index} for index in range(len(self.data))][:limit]

    def generate(self, model: Any, items: Sequence[Mapping[str, Any]], folder: Path, *, seed: int) -> Iterator[Sample]:
        """Segment and keep the label map as a PNG."""
        if list(model.classes) != list(self.data.classes):
            raise EvaluationError(
                f"{model.name} has {len(model.classes)} classes and the data {len(self.data.classes)} others", fix="use a model of this data set's classes"
            )
        (folder / "labels").mkdir(exist_ok=True)
        for item in items:
            image, _ = self.data[item["index"]]
            began = time.perf_counter()
            result = model.segment(Image.fromarray(np.ascontiguousarray(image)), **self.options)
            seconds = time.perf_counter() - began
            file = f"labels/{Path(str(item['id'])).stem}.png"
            Image.fromarray(result.labels[0].astype(np.uint8)).save(folder / file)
            share = float((result.info.get("refined_share") or [0.0])[0])
            yield Sample(id=item["id"], inputs={"index": item["index"]}, outputs={"seconds": seconds, "refined_share": share}, files={"labels": file})

    def score(self, samples: Sequence[Sample], folder: Path) -> Sequence[Sample]:
        """Pixel accuracy and mIoU (classes that occur) of each picture; the whole table is kept for :meth:`aggregate`."""
        classes = len(self.data.classes)
        for sample in samples:
            truth = torch.from_numpy(np.ascontiguousarray(self.data[sample.inputs["index"]][1]))
            predicted = torch.from_numpy(np.asarray(Image.open(folder / sample.files["labels"])).copy())
            table = confusion(predicted, truth, classes, self.data.ignore_index)
            edges = boundary_counts(predicted, truth, classes, ignore=self.data.ignore_index, ratio=self.ratio)
            sample.outputs = {**sample.outputs, "table": table.tolist(), "edges": edges.tolist()}
            sample.scores = {"pixel_accuracy": pixel_accuracy(table), "picture_miou": mean_iou(table, present_only=True)}
        return samples

    def aggregate(self, samples: Sequence[Sample], folder: Path) -> Mapping[str, float]:
        """mIoU over all classes (absent ones as 0, the reference's rule) and over those that occur, boundary IoU, IoU of each class, milliseconds."""
        table = torch.stack([torch.tensor(sample.outputs["table"]) for sample in samples]).sum(0)
        edges = torch.stack([torch.tensor(sample.outputs["edges"]) for sample in samples]).sum(0)
        seconds = [float(sample.outputs["seconds"]) for sample in samples]
        iou = class_iou(table)
        metrics = {
            "miou": mean_iou(table),
            "miou_present": mean_iou(table, present_only=True),
            "boundary_iou": mean_boundary_iou(edges),
            "pixel_accuracy": pixel_accuracy(table),
            "ms_p50": 1000 * float(np.percentile(seconds, 50)),
            "ms_p95": 1000 * float(np.percentile(seconds, 95)),
            "refined_share": float(np.mean([float(sample.outputs["refined_share"]) for sample in samples])),
        }
        self.notes = [f"boundary IoU: bands of {self.ratio} of the diagonal; {len(samples)} pictures"]
        return metrics | {f"iou/{name}": float(value) for name, value in zip(self.data.classes, iou, strict=True)}
