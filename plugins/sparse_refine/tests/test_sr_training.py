"""Both recipes at toy size: the dense model learns, the refiner lowers its loss and is loaded again; a run goes on bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from zoo_sparse_refine.config import RefinerConfig
from zoo_sparse_refine.refiner import Refiner
from zoo_sparse_refine.training import dense, refiner
from zoo_sparse_refine.training.config import DenseTrainConfig, RefinerTrainConfig

import zoo
from zoo_core.errors import ConfigError, TrainingError

TINY = {
    "model_type": "segformer",
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [8, 8, 16, 16],
    "num_attention_heads": [1, 1, 2, 2],
    "decoder_hidden_size": 16,
}
DATA = {"scenes": 4, "held_out": 1, "height": 128, "width": 256, "crop_height": 64, "crop_width": 128, "scale_low": 1.0, "scale_high": 1.0}
COMMON = {"batch_size": 2, "log_every": 1, "device": "cpu", "tensorboard": False, "threads": 1, "clip_grad": 1.0}


def losses(folder: Path, key: str = "loss") -> list[float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if key in line]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense model, briefly trained for half of the resolution."""
    folder = tmp_path_factory.mktemp("dense")
    config = DenseTrainConfig(
        output=str(folder), folder=str(folder / "cache"), steps=60, lr=1e-2, model=TINY, shrink=2, **{**DATA, "crop_height": 32, "crop_width": 64}, **COMMON
    )
    result = dense.run(config)
    assert {"miou", "pixel_accuracy"} <= set(result["evaluation"])
    return folder


def test_the_dense_recipe_learns(trained: Path) -> None:
    seen = losses(trained)
    assert np.mean(seen[-5:]) < 0.85 * np.mean(seen[:5]), seen


def test_the_refiner_learns_and_loads(trained: Path, tmp_path: Path) -> None:
    settings = {"planes": [8, 8], "reps": [1, 1], "top_k": 0.1, "baseline": str(trained / "export"), "model": "sparse-refine-hrnet-w48"}
    whole = {**DATA, "scenes": 2, "crop_height": 128, "crop_width": 256}
    config = RefinerTrainConfig(output=str(tmp_path / "run"), folder=str(trained / "cache"), steps=60, lr=5e-3, **settings, **whole, **COMMON)
    result = refiner.run(config)
    seen = losses(tmp_path / "run")
    assert np.mean(seen[-10:]) < 0.8 * np.mean(seen[:5]), seen
    assert result["evaluation"]["refined_share"] == pytest.approx(0.1, abs=0.01)
    model = zoo.load("sparse-refine-hrnet-w48", weights=result["export"], device="cpu")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (100, 200, 3), dtype=np.uint8))
    made = model.segment(image)
    assert model.refines and made.labels[0].shape == (100, 200) and made.info["refined_share"][0] == pytest.approx(0.1, abs=0.01)
    assert (made.labels[0] != model.segment(image, refine=False).labels[0]).any(), "the refiner changes something"
    dense_before = zoo.load("sparse-refine-hrnet-w48", weights=str(trained / "export"), device="cpu").network.baseline
    for old, new in zip(dense_before.parameters(), model.network.baseline.parameters(), strict=True):
        assert torch.equal(old, new), "the dense model is frozen"


def test_a_run_goes_on_where_it_stopped(trained: Path, tmp_path: Path) -> None:
    settings = {"planes": [4, 4], "reps": [1, 1], "top_k": 0.05, "baseline": str(trained / "export"), "model": "sparse-refine-hrnet-w48"}
    common = {"folder": str(trained / "cache"), "lr": 1e-2, "save_every": 2, **settings, **DATA, **COMMON}
    whole = refiner.run(RefinerTrainConfig(output=str(tmp_path / "whole"), steps=4, **common))
    refiner.run(RefinerTrainConfig(output=str(tmp_path / "parts"), steps=2, **common))
    parts = refiner.run(RefinerTrainConfig(output=str(tmp_path / "parts"), steps=4, **common))
    files = [Path(result["export"]) / "refiner.safetensors" for result in (whole, parts)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_bad_settings_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="scale_low"):
        DenseTrainConfig(output=str(tmp_path), scale_low=0.0)
    with pytest.raises(TrainingError, match="no dense baseline"):
        refiner.run(RefinerTrainConfig(output=str(tmp_path), steps=1, **DATA, **COMMON))


def test_the_ensembler_begins_with_what_its_gate_mixed() -> None:
    torch.manual_seed(0)
    network = Refiner(RefinerConfig(num_classes=5, planes=[4, 8], reps=[1, 1], hidden=16))
    coarse, refined = torch.randn(2, 7, 5).unbind(0)
    mixed = network.ensembler.mix(coarse, refined)
    assert not torch.allclose(network.ensembler(coarse, refined), mixed, atol=0.1)
    refiner.begin_as_identity(network)
    torch.testing.assert_close(network.ensembler(coarse, refined), mixed)
    narrow = Refiner(RefinerConfig(num_classes=5, planes=[4, 8], reps=[1, 1], hidden=8))
    before = narrow.ensembler(coarse, refined)
    refiner.begin_as_identity(narrow)
    torch.testing.assert_close(narrow.ensembler(coarse, refined), before)
