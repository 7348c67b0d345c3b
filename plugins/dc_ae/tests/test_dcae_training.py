"""The three-phase recipe on a tiny network and a handful of generated pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from zoo_dc_ae.autoencoder import DCAE
from zoo_dc_ae.config import AutoencoderConfig, CoderConfig
from zoo_dc_ae.training import evaluate as measures
from zoo_dc_ae.training.config import AutoencoderTrainConfig, LossConfig, emoji_autoencoder
from zoo_dc_ae.training.data import Augment, compose, load_pictures
from zoo_dc_ae.training.losses import laplacian_pyramid, reconstruction_loss, trunk_excess
from zoo_dc_ae.training.recipe import run

from zoo_core.errors import ConfigError
from zoo_core.training import load_weights


def tiny() -> AutoencoderConfig:
    half: dict[str, Any] = {
        "widths": [16, 16, 32],
        "depths": [0, 1, 1],
        "blocks": ["res", "res", "vit"],
        "scales": [[], [], []],
        "norms": ["rms_norm"] * 3,
        "activations": ["silu"] * 3,
    }
    encoder, decoder = CoderConfig(**half, resample="pixel_unshuffle"), CoderConfig(**half, resample="interpolate")
    return AutoencoderConfig(latent_channels=16, scaling_factor=1.0, encoder=encoder, decoder=decoder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discs of random colour and place."""
    from PIL import Image, ImageDraw

    folder = tmp_path_factory.mktemp("pictures")
    generator = torch.Generator().manual_seed(0)
    for index in range(24):
        x, y, radius, *colour = torch.randint(0, 255, (6,), generator=generator).tolist()
        picture = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
        x, y, radius = 8 + x % 16, 8 + y % 16, 4 + radius % 8
        ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), fill=(*colour, 255))
        picture.save(folder / f"{index:02d}.png")
    return folder


def settings(pictures: Path, output: Path, **changes: Any) -> AutoencoderTrainConfig:
    values: dict[str, Any] = {
        "data": str(pictures), "output": str(output), "size": 32, "model": tiny(), "steps": 40, "batch_size": 8, "lr": 4e-3, "warmup": 5, "ema": 0.8,
        "decay": 0.5, "log_every": 20, "eval_every": 0, "save_every": 0, "tensorboard": False, "device": "cpu",
        "precision": "float32", "low_size": 0, "low_steps": 0,
    }  # fmt: skip
    return AutoencoderTrainConfig(**{**values, **changes})


@pytest.fixture(scope="module")
def first(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    output = tmp_path_factory.mktemp("runs") / "p1"
    return output, run(settings(pictures, output, low_size=16, low_steps=10))


def test_phase_1_learns_and_exports_a_folder_that_loads(first: tuple[Path, dict[str, Any]], pictures: Path) -> None:
    import zoo

    output, result = first
    untrained = DCAE(tiny()).eval()
    _, held_out = load_pictures(settings(pictures, output))
    before = float(measures.psnr(*measures.reconstruct_all(untrained, held_out)).mean())
    assert result["evaluation"]["psnr"] > before + 4
    model = zoo.load(result["export"], device="cpu")
    assert model.ratio == 4
    real, made = measures.reconstruct_all(model.network, held_out)
    assert float(measures.psnr(real, made).mean()) == pytest.approx(result["evaluation"]["psnr"], abs=0.3), "bfloat16 export of the averaged weights"
    train, _ = load_pictures(settings(pictures, output))
    assert float((model.encode(compose(train)) * model.scaling_factor).std()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("changes", "moves", "stays"),
    [
        ({"phase": 2, "size": 32, "low_size": 16}, ("encoder.conv_out", "decoder.conv_in", "decoder.stages.2."), ("encoder.conv_in", "decoder.conv_out")),
        ({"phase": 3, "critic_start": 1}, ("decoder.conv_out", "decoder.stages.1.", "decoder.norm_out"), ("encoder.", "decoder.conv_in", "decoder.stages.2.")),
        ({"phase": 3, "scope": "decoder", "loss": LossConfig(gan=0.0), "latent_noise": 0.1}, ("decoder.",), ("encoder.",)),
    ],
    ids=["latent adaptation", "local refinement with critic", "decoder refinement"],
)
def test_later_phases_touch_only_their_part(
    first: tuple[Path, dict[str, Any]], pictures: Path, tmp_path: Path, changes: dict[str, Any], moves: tuple[str, ...], stays: tuple[str, ...]
) -> None:
    result = run(settings(pictures, tmp_path / "next", init=str(first[0]), steps=3, **changes))
    before, after = load_weights(first[0], "autoencoder"), load_weights(result["checkpoint"], "autoencoder", ema=False)
    for key, value in after.items():
        if key.startswith(stays):
            assert torch.equal(value, before[key].to(value.dtype)), key
        if key.startswith(moves) and value.ndim == 4:
            assert not torch.equal(value, before[key]), key


def test_decoder_refinement_keeps_the_scaling_factor_and_starts_from_what_zoo_load_takes(
    first: tuple[Path, dict[str, Any]], pictures: Path, tmp_path: Path
) -> None:
    import json

    def factor(folder: str) -> float:
        return json.loads((Path(folder) / "config.json").read_text())["scaling_factor"]

    started = factor(first[1]["export"])
    changes = {"phase": 3, "steps": 1, "loss": LossConfig(gan=0.0)}
    for name, init in (("run", first[0]), ("folder", first[1]["export"])):
        result = run(settings(pictures, tmp_path / name, init=str(init), **changes))
        assert factor(result["export"]) == started != 1.0, name
    with pytest.raises(ConfigError, match="no run folder, no checkpoint file and no autoencoder"):
        run(settings(pictures, tmp_path / "none", init="no-such-autoencoder", **changes))


def test_an_interrupted_run_ends_like_an_uninterrupted_one(pictures: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    whole = run(settings(pictures, tmp_path / "whole", steps=6, schedule="constant"))
    part = settings(pictures, tmp_path / "part", steps=6, schedule="constant", save_every=3)
    shortened = replace(part, max_seconds=1e-9)  # stops after one step
    assert run(shortened)["step"] == 1
    resumed = run(part)
    assert resumed["step"] == 6
    one, other = load_weights(whole["checkpoint"], "autoencoder"), load_weights(resumed["checkpoint"], "autoencoder")
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_settings_that_cannot_work_are_refused(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="goes on from trained weights"):
        settings(pictures, tmp_path, phase=2)
    with pytest.raises(ConfigError, match="size=30"):
        settings(pictures, tmp_path, size=30)
    with pytest.raises(ConfigError, match="0 pictures"):
        (tmp_path / "empty").mkdir()
        run(settings(tmp_path / "empty", tmp_path / "out"))


def test_losses_see_what_they_should() -> None:
    target = torch.rand(2, 3, 16, 16) * 2 - 1
    assert float(reconstruction_loss(target, target, LossConfig())["loss"]) == 0
    shifted = target + 0.1
    assert float(reconstruction_loss(shifted, target, LossConfig())["detail"]) == pytest.approx(0, abs=1e-6), "a constant offset has no detail"
    parts = laplacian_pyramid(target, 2)
    assert [part.shape[-1] for part in parts] == [16, 8, 4]
    assert float(trunk_excess([torch.full((4,), 5.0), torch.ones(4)], 3.0)) == pytest.approx(2.0)


def test_augmentation_is_seeded_and_keeps_the_range() -> None:
    batch = {"pictures": torch.randint(0, 256, (6, 4, 32, 32), dtype=torch.uint8)}
    make = Augment(colours=0.5, backgrounds=0.5)
    one, other = (make(batch, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, other)
    assert one.shape == (6, 3, 32, 32)
    assert float(one.abs().max()) <= 1.0
    assert not torch.equal(one, make(batch, torch.Generator().manual_seed(4)))


def test_the_default_network_is_below_five_million_parameters() -> None:
    with torch.device("meta"):
        model = DCAE(emoji_autoencoder())
    assert model.ratio == 32
    assert sum(p.numel() for p in model.parameters()) == 4_854_355


def test_embedded_weights_reconstruct_plain_shapes() -> None:
    """A picture of a kind the model knows (a yellow disc on white) survives; noise of the same brightness does not."""
    import zoo

    model = zoo.load("dc-ae-emoji", device="cpu")
    grid = torch.linspace(-1, 1, 128)
    inside = (grid[:, None] ** 2 + grid[None] ** 2 < 0.7).float()
    colour = torch.tensor([0.98, 0.8, 0.25])[:, None, None] * 2 - 1
    disc = (colour * inside + (1 - inside))[None]
    noise = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        quality = [float(measures.psnr(measures.to_uint8(x), measures.to_uint8(model.decode(model.encode(x)))).mean()) for x in (disc, noise)]
    assert quality[0] > 26
    assert quality[1] < 15
