"""The emoji recipe at toy size: colours, captions, tokenizer, split, learning, export."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from zoo_sana import flow
from zoo_sana.training import captions, data, evaluate, recipe
from zoo_sana.training.colours import dominant_hue, recolour, without_colour
from zoo_sana.training.config import EmojiTrainConfig, TextConfig
from zoo_sana.training.text import train_tokenizer

from zoo_core.errors import ConfigError, InputError

NAMES = ("apple", "cat", "red heart", "slice of pizza", "rocket", "blue car")


def disc(colour: tuple[int, int, int]) -> np.ndarray:
    """A disc of one colour with a small green leaf, uint8 [32, 32, 4]."""
    grid = np.linspace(-1, 1, 32)
    picture = np.zeros((32, 32, 4), np.uint8)
    picture[grid[:, None] ** 2 + grid[None] ** 2 < 0.8] = (*colour, 255)
    picture[2:6, 14:18] = (40, 170, 40, 255)
    return picture


def test_recolouring_changes_the_dominant_colour_only() -> None:
    apple = disc((220, 40, 40))
    hue = dominant_hue(apple)
    assert hue is not None
    assert abs((hue + 180) % 360 - 180) < 15
    blue = recolour(apple, hue, "blue")
    assert blue[16, 16].tolist()[2] > 150 > blue[16, 16].tolist()[0]
    assert np.abs(blue[3, 15].astype(int) - apple[3, 15]).max() < 8, "the leaf stays green"
    assert (blue[..., 3] == apple[..., 3]).all()
    assert dominant_hue(disc((90, 90, 90))) is None


def test_captions_carry_name_style_and_colour() -> None:
    draw = random.Random(0)
    made = [captions.caption("red apple", ("fruit", "red"), "food", "google", "twitter", draw) for _ in range(60)]
    assert all("google" in text for text in made), "another style than the default is always named"
    plain = [captions.caption("pizza", (), "food", "twitter", "twitter", draw) for _ in range(60)]
    assert 20 < sum("twitter" not in text for text in plain) < 60
    assert any(text.startswith("a slice of") for text in plain)
    coloured = [captions.caption(without_colour("red apple"), (), "food", "twitter", "twitter", draw, colour="blue") for _ in range(20)]
    assert all("blue apple" in text and "red" not in text for text in coloured)
    assert captions.clean("Mother’s “Day”: OK!") == "mother s day ok"


def test_tokenizer_starts_with_bos_and_survives_unknown_characters(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    made = train_tokenizer(["a slice of pizza", "a blue apple", "a slice of apple"] * 4, 320)
    made.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("a slice of pizza").input_ids
    assert ids[0] == tokenizer.bos_token_id == 2
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a slice of pizza"
    strange = tokenizer("é☃").input_ids
    assert tokenizer.unk_token_id not in strange
    assert tokenizer.convert_ids_to_tokens(strange)[-5:] == ["<0xC3>", "<0xA9>", "<0xE2>", "<0x98>", "<0x83>"]
    padded = tokenizer("a", padding="max_length", max_length=6)
    assert sum(padded.attention_mask) == len(tokenizer("a").input_ids)


def toy(output: Path, **changes: Any) -> EmojiTrainConfig:
    values: dict[str, Any] = {
        "output": str(output), "width": 64, "layers": 2, "heads": 2, "cross_heads": 2,
        "text": TextConfig(vocabulary=400, width=32, layers=1, heads=2, length=12),
        "steps": 150, "batch_size": 6, "draws": 4, "lr": 4e-3, "warmup": 5, "ema": 0.9, "captions": 4, "guidance": 1.0, "sample_steps": 8, "log_every": 50,
        "eval_every": 0, "save_every": 0, "tensorboard": False, "device": "cpu", "styles": ["twitter"], "style_weights": [1.0],
    }  # fmt: skip
    return EmojiTrainConfig(**{**values, **changes})


def latents() -> data.EmojiLatents:
    generator = torch.Generator().manual_seed(0)
    rows = [data.Row(f"{i:x}", name, (), "objects", "twitter", None, False) for i, name in enumerate(NAMES)]
    return data.EmojiLatents(torch.randn(len(NAMES), 32, 4, 4, generator=generator), rows, 1.0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "prepare", lambda config: latents())
        patch.setattr(evaluate, "_decoder", lambda config: None)
        patch.setattr(evaluate, "while_training", lambda config, network, tokenizer, latents, state: {"top1": _top1(config, network, tokenizer, latents)})
        return recipe.run(toy(tmp_path_factory.mktemp("runs") / "toy"))


def _top1(config: EmojiTrainConfig, network: Any, tokenizer: Any, bank: data.EmojiLatents) -> float:
    prompts = [evaluate.plain_prompt(row, "twitter") for row in bank.rows]
    made = evaluate.generate_latents(network, tokenizer, prompts, bank.latents.shape[1:], shift=2.0, guidance=1.0, steps=8, seed=1)
    return evaluate.retrieval(made, bank.rows, bank)["top1"]


def test_the_recipe_learns_to_draw_what_is_asked(trained: dict[str, Any]) -> None:
    assert trained["evaluation"]["top1"] >= 5 / 6
    assert trained["train"]["loss"] < 1.0, "the target's variance is 2"


def test_a_second_round_starts_from_the_averaged_weights_and_the_tokenizer_of_the_first(
    trained: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "prepare", lambda config: latents())
    monkeypatch.setattr(evaluate, "_decoder", lambda config: None)
    monkeypatch.setattr(evaluate, "while_training", lambda config, network, tokenizer, latents, state: {})
    monkeypatch.setattr(recipe, "train_tokenizer", lambda texts, vocabulary: pytest.fail("the first round's tokenizer is to be used"))
    second = recipe.run(toy(tmp_path / "second", init=str(trained["output"]), steps=2, lr=1e-5, log_every=1))
    assert second["train"]["loss"] < 1.2, "a fresh network starts near 2"


def test_the_export_is_a_published_pipeline_folder(trained: dict[str, Any]) -> None:
    folder = Path(trained["export"])
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "SanaPipeline"
    assert json.loads((folder / "scheduler" / "scheduler_config.json").read_text())["flow_shift"] == 2.0
    assert json.loads((folder / "zoo.json").read_text()) == {"autoencoder": "dc-ae-emoji", "text_tokens": 12, "instruction": False}
    diffusers = pytest.importorskip("diffusers")
    net = diffusers.SanaTransformer2DModel.from_pretrained(folder / "transformer")
    assert net.config.num_layers == 2


def test_the_export_generates_through_the_plugin(trained: dict[str, Any]) -> None:
    pytest.importorskip("zoo_dc_ae")
    import zoo

    model = zoo.load(trained["export"], device="cpu")
    image = model.generate("a slice of pizza", seed=0, steps=4, guidance=2.0, height=128, width=128).images[0]
    assert image.size == (128, 128)


def test_split_by_pairs_and_weights() -> None:
    rows = [data.Row(f"{i:x}", "x y", (), "objects", "twitter", None, data.held_out_pair(f"{i:x}", "twitter", 0.1, 0)) for i in range(500)]
    held = [row.held_out for row in rows]
    assert 25 < sum(held) < 80
    counts = data.draw_counts(rows, EmojiTrainConfig())
    assert all((count == 0) == row.held_out for count, row in zip(counts, rows))


def test_dropped_captions_are_the_empty_prompt() -> None:
    bank = latents()
    tokens = torch.full((len(NAMES), 3, 6), 7, dtype=torch.int32)
    empty = torch.tensor([2, 0, 0, 0, 0, 0])
    batch = data.CaptionedLatents(bank.latents, tokens, empty, dropout=1.0)({"row": torch.arange(4)}, torch.Generator().manual_seed(0))
    assert batch["ids"].tolist() == [[2]] * 4
    assert batch["mask"].tolist() == [[1]] * 4


def test_times_are_logit_normal_and_shifted() -> None:
    generator = torch.Generator().manual_seed(0)
    plain = flow.logit_normal_times(20000, 1.0, generator=generator)
    shifted = flow.logit_normal_times(20000, 3.0, generator=generator)
    assert float(plain.median()) == pytest.approx(0.5, abs=0.01)
    assert float(shifted.median()) == pytest.approx(0.75, abs=0.01)
    assert float(torch.logit(plain).std()) == pytest.approx(1.0, abs=0.02)


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="style_weights"):
        toy(tmp_path, styles=["twitter", "google"])
    with pytest.raises(ConfigError, match="width"):
        toy(tmp_path, width=65)


def test_noising_and_loss_are_the_rectified_flow() -> None:
    clean, noise = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    times = torch.tensor([0.0, 0.25, 1.0])
    mixed = flow.add_noise(clean, noise, times)
    torch.testing.assert_close(mixed[1], 0.75 * clean[1] + 0.25 * noise[1])
    assert torch.equal(mixed[0], clean[0])
    assert float(flow.flow_loss(noise - clean, clean, noise)) == 0
    assert float(flow.flow_loss(clean - noise, clean, noise)) == pytest.approx(4 * float((noise - clean).square().mean()), rel=1e-5)
    levels, index = flow.discrete_times(torch.tensor([0.0, 0.4999, 0.99999]), 3.0)
    assert index.tolist() == [0, 499, 999]
    assert levels[-1] == 1
    with pytest.raises(InputError, match="shift"):
        flow.logit_normal_times(4, 0.0)
