"""The handle: sizes, modes of selection, what the refiner sees, reports, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from zoo_sparse_refine.config import RefinerConfig, SparseRefineConfig
from zoo_sparse_refine.pipeline import normalise
from zoo_sparse_refine.plugin import TINY
from zoo_sparse_refine.selection import entropy, log_scores, select_pixels

import zoo
from zoo_core.errors import ConfigError, InputError

MODEL = "sparse-refine-hrnet-w48"


@pytest.fixture(scope="module")
def model() -> Any:
    return zoo.load(MODEL, weights="random", seed=5, device="cpu", overrides=dict(TINY))


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(64, 64), (33, 97), (1, 1), (3, 200), (128, 31)])
def test_any_size(model: Any, size: tuple[int, int]) -> None:
    result = model.segment(picture(*size), scores=True)
    assert result.labels[0].shape == size and result.labels[0].dtype == np.uint8
    assert result.scores[0].shape[0] == 19 and np.isfinite(result.scores[0]).all()
    assert 0 <= result.info["refined_share"][0] <= 1
    assert set(result.info["milliseconds"][0]) == {"dense", "selector", "sparse", "ensemble", "write"}


def test_modes_of_selection(model: Any) -> None:
    """Share and budget are met exactly, a budget never adds pixels, the most uncertain pixels are taken."""
    image = picture(64, 64)
    assert model.segment(image, top_k=0.25).info["refined_share"] == [0.25]
    assert model.segment(image, top_k=1.0).info["refined_share"] == [1.0]
    assert model.segment(image, threshold=0.0, budget=100).info["refined_share"] == [100 / 4096]
    assert model.segment(image, threshold=100.0, budget=100).info["refined_share"] == [0.0]
    scores = torch.randn(2, 5, 8, 8, generator=torch.Generator().manual_seed(0)) * 3
    uncertainty = entropy(scores.permute(0, 2, 3, 1).softmax(-1)).repeat_interleave(2, 1).repeat_interleave(2, 2)
    chosen = select_pixels(scores, (16, 16), threshold=0.0, top_k=0.3).coordinates.long()
    for index in range(2):
        mask = torch.zeros(16, 16, dtype=torch.bool)
        mask[chosen[chosen[:, 0] == index][:, 1:].unbind(1)] = True
        assert mask.sum() == round(0.3 * 256)
        assert uncertainty[index][mask].min() >= uncertainty[index][~mask].max()
    assert chosen.tolist() == sorted(chosen.tolist())


def test_what_is_not_selected_keeps_the_dense_class(model: Any) -> None:
    image = picture(64, 64)
    dense = model.segment(image, refine=False).labels[0]
    assert (model.segment(image, threshold=100.0).labels[0] == dense).all()
    out = model.network(torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float(), top_k=0.2)
    mask = np.zeros((64, 64), dtype=bool)
    mask[tuple(out.refined.selection.coordinates[:, 1:].T.tolist())] = True
    assert (out.labels[0].numpy()[~mask] == dense[~mask]).all()
    assert (out.labels[0].numpy()[mask] == out.refined.ensembled.argmax(1).numpy()).all()


def test_labels_agree_with_the_references_full_maps(model: Any) -> None:
    """The class map built without full-size scores equals the arg max of ``logits/e/full`` of the training-time path."""
    pixels = torch.from_numpy(np.asarray(picture(64, 96)).copy()).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        out = model.network(pixels, threshold=2.9)
        full = torch.nn.functional.interpolate(out.scores, size=(64, 96), mode="nearest").permute(0, 2, 3, 1)
        reference = model.network.refiner(model.network.detail(pixels).permute(0, 2, 3, 1), full, threshold=2.9)
    assert torch.equal(reference["logits/e/full"].argmax(-1).to(torch.uint8), out.labels)


def test_channel_order_is_the_configurations(model: Any) -> None:
    """The reference's refiner sees blue, green, red normalised with the numbers of red, green, blue; a new one may see R G B."""
    pixels = torch.rand(1, 3, 4, 4) * 255
    assert model.config.refiner.channel_order == "bgr"
    assert torch.equal(model.network.detail(pixels), normalise(pixels.flip(1)))
    other = zoo.load(MODEL, weights="random", seed=5, device="cpu", overrides={**TINY, "refiner.channel_order": "rgb"})
    assert torch.equal(other.network.detail(pixels), normalise(pixels))


def test_the_engines_give_the_same_classes(model: Any) -> None:
    pytest.importorskip("spconv")
    other = zoo.load(MODEL, weights="random", seed=5, device="cpu", overrides=dict(TINY), engine="spconv")
    image = picture(64, 96)
    assert (model.segment(image, top_k=0.4).labels[0] == other.segment(image, top_k=0.4).labels[0]).mean() > 0.999


def test_scores_that_are_no_logits() -> None:
    """Mask2Former's sums: ln(max(score, 1e-10)); entropies are those of the scores made to sum to one."""
    scores = torch.rand(3, 7)
    scores[0, 2] = 0
    probabilities = log_scores(scores).softmax(-1)
    torch.testing.assert_close(probabilities, scores.clamp_min(1e-10) / scores.clamp_min(1e-10).sum(-1, keepdim=True))
    assert torch.isfinite(log_scores(scores)).all()


def test_latency_report(model: Any) -> None:
    report = model.latency([picture(64, 64), picture(64, 96)], repeats=2, top_k=0.2)
    assert report["runs"] == 4 and report["refined_share"]["mean"] == pytest.approx(0.2, abs=0.001)
    for part in ("dense", "selector", "sparse", "ensemble", "total"):
        assert 0 < report["parts"][part]["p50_ms"] <= report["parts"][part]["p95_ms"]
    parts = sum(row["p50_ms"] for name, row in report["parts"].items() if name != "total")
    assert parts == pytest.approx(report["parts"]["total"]["p50_ms"], rel=0.5)


def test_class_shares_and_colours(model: Any, tmp_path: Path) -> None:
    labels = model.segment(picture(64, 64)).labels[0]
    shares = model.class_shares(labels)
    assert sum(shares.values()) == pytest.approx(1) and set(shares) <= set(model.classes)
    assert len(model.palette) == len(model.classes) == 19


def test_bad_input(model: Any, tmp_path: Path) -> None:
    (tmp_path / "no.png").write_bytes(b"not a picture")
    for given in ([], str(tmp_path / "absent.png"), str(tmp_path / "no.png"), 3, [None]):
        with pytest.raises(InputError):
            model.segment(given)
    for options in ({"top_k": 0.0}, {"top_k": 1.5}, {"budget": -1}, {"top_k": 0.1, "budget": 10}, {"treshold": 1}):
        with pytest.raises(InputError):
            model.segment(picture(32, 32), **options)
    with pytest.raises(ConfigError):
        model.to(dtype=torch.bfloat16)


def test_configurations_that_cannot_be_built() -> None:
    for refiner in (
        RefinerConfig(planes=[8]),
        RefinerConfig(features=["rgb", "depth"]),
        RefinerConfig(ensembler="mean"),
        RefinerConfig(bounds="none"),
        RefinerConfig(channel_order="gbr"),
        RefinerConfig(num_classes=0),
    ):
        with pytest.raises(ConfigError):
            SparseRefineConfig(refiner=refiner).check()
    assert RefinerConfig(num_classes=5, features=["rgb", "xy", "p", "p>0.3"]).check().in_channels == 15
