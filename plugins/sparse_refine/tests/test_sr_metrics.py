"""Numbers of segmentation against torchmetrics and scipy, and the evaluator on a made-up segmenter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from zoo_sparse_refine.evaluation.boundary import band_width, bands, boundary_counts, mean_boundary_iou
from zoo_sparse_refine.evaluation.segmentation import Segmentation
from zoo_sparse_refine.metrics import class_iou, confusion, dice_loss, mean_iou, pixel_accuracy


def maps(seed: int, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (40, 50), generator=generator)
    predicted = torch.where(torch.rand((40, 50), generator=generator) < 0.7, labels, torch.randint(0, classes, (40, 50), generator=generator))
    labels[torch.rand((40, 50), generator=generator) < 0.1] = 255
    return predicted, labels


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_iou_and_accuracy_against_torchmetrics(seed: int) -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification")
    predicted, labels = maps(seed)
    table = confusion(predicted, labels, 5)
    iou = functional.multiclass_jaccard_index(predicted, labels, 5, average=None, ignore_index=255)
    assert torch.allclose(class_iou(table).float(), iou, atol=1e-6)
    assert mean_iou(table) == pytest.approx(float(iou.mean()), abs=1e-6)
    accuracy = functional.multiclass_accuracy(predicted, labels, 5, average="micro", ignore_index=255)
    assert pixel_accuracy(table) == pytest.approx(float(accuracy), abs=1e-6)


def test_absent_classes_count_as_zero_unless_left_out() -> None:
    labels = torch.tensor([0, 0, 1, 1, 255])
    table = confusion(labels.clamp(max=1), labels, 4)
    assert mean_iou(table) == pytest.approx(0.5) and mean_iou(table, present_only=True) == pytest.approx(1.0)
    assert mean_iou(confusion(labels[:0], labels[:0], 4)) == 0.0


def test_dice_of_a_perfect_and_of_a_wrong_prediction() -> None:
    labels = torch.tensor([0, 1, 2, 255])
    sure = torch.nn.functional.one_hot(labels.clamp(max=2), 3).float() * 100
    assert float(dice_loss(sure, labels)) == pytest.approx(0.0, abs=1e-4)
    assert float(dice_loss(-sure, labels)) > 0.6


@pytest.mark.parametrize("width", [1, 3])
def test_bands_against_scipy(width: int) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    mask = np.random.default_rng(width).random((30, 40)) < 0.9
    mask = ndimage.binary_opening(mask, iterations=1)
    inner = ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=width, border_value=0)
    assert np.array_equal(bands(torch.from_numpy(mask)[None], width)[0].numpy(), mask & ~inner)


def test_boundary_iou_sees_a_shifted_edge_that_miou_forgives() -> None:
    labels = torch.zeros(200, 400, dtype=torch.long)
    labels[:, 200:] = 1
    shifted = labels.roll(3, 1)
    shifted[:, :3] = 0
    counts = boundary_counts(shifted, labels, 2, ratio=0.01)
    assert band_width(200, 400, 0.01) == 4
    assert mean_iou(confusion(shifted, labels, 2)) > 0.98 and mean_boundary_iou(counts) < 0.75
    assert mean_boundary_iou(boundary_counts(labels, labels, 2)) == 1.0


class Knows:
    """Says the truth of the generated scenes, wrong in one class."""

    name = "knows"

    def __init__(self, data: Any, wrong: int) -> None:
        self.classes, self.data, self.wrong = data.classes, data, wrong

    def segment(self, image: Any, **options: Any) -> Any:
        from zoo_core.interfaces import SegmentationResult

        index = next(i for i in range(len(self.data)) if np.array_equal(self.data[i][0], np.asarray(image)))
        labels = self.data[index][1].copy()
        labels[labels == self.wrong] = 0
        return SegmentationResult([labels], info={"refined_share": [0.25]})


def test_the_evaluator_measures_any_segmenter(tmp_path: Path) -> None:
    evaluator = Segmentation(count=2, height=96, width=192, folder=str(tmp_path / "cache"))
    model = Knows(evaluator.data, wrong=3)
    samples = evaluator.score(list(evaluator.generate(model, evaluator.items(), tmp_path, seed=0)), tmp_path)
    metrics = evaluator.aggregate(samples, tmp_path)
    assert metrics["iou/sky"] == 0.0 and metrics["iou/building"] == pytest.approx(1.0)
    assert 0.5 < metrics["miou_present"] < 1 and metrics["refined_share"] == 0.25 and metrics["ms_p95"] >= metrics["ms_p50"] > 0
    assert (tmp_path / "labels").is_dir() and all("pixel_accuracy" in sample.scores for sample in samples)
