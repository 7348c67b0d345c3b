"""Published keys and shapes, conversion either way, and what a folder needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from zoo_sana import layouts
from zoo_sana.config import TransformerConfig, from_diffusers, from_original, to_diffusers, to_original
from zoo_sana.loading import load_transformer, save_transformer
from zoo_sana.transformer import SanaTransformer

from zoo_core.checkpoint import DictSource, open_checkpoint
from zoo_core.errors import CheckpointError, ConfigError, InputError, ZooError
from zoo_core.loading import load
from zoo_core.parity import golden_folder
from zoo_core.registry import get_registry

DATA = Path(__file__).parent / "data"
MANIFESTS = sorted(golden_folder("sana").glob("manifest-sana*.json"))
TINY = TransformerConfig(in_channels=4, out_channels=4, heads=4, head_dim=8, cross_heads=2, layers=2, caption_channels=12, sample_size=4)


@pytest.mark.golden
@pytest.mark.skipif(not MANIFESTS, reason="no recorded manifests (set ZOO_GOLDEN)")
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.stem.removeprefix("manifest-"))
def test_meta_model_has_exactly_the_published_keys_and_shapes(path: Path) -> None:
    data = json.loads(path.read_text())
    config = from_original(data["config"]) if "hidden_size" in data["config"] else from_diffusers(data["config"])
    with torch.device("meta"):
        net = SanaTransformer(config)
    published = {key: torch.empty(shape, device="meta") for key, shape in data["tensors"].items()}
    layout = layouts.transformer_layout(published)
    mapped = layouts.KEYMAPS[layout](config).apply(DictSource(published))
    ours = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert {key: tuple(mapped.shape(key)) for key in mapped.keys()} == ours  # noqa: SIM118
    assert sum(p.numel() for p in net.parameters()) == data["parameters"] or layout == layouts.ORIGINAL


@pytest.mark.parametrize("variant", [{}, {"qk_norm": True, "position_scale": 2.0}, {"qk_norm": True, "guidance_embed": True}])
@pytest.mark.parametrize("layout", [layouts.DIFFUSERS, layouts.ORIGINAL])
def test_either_layout_round_trips_exactly(tmp_path: Path, variant: dict[str, Any], layout: str) -> None:
    from dataclasses import replace

    net = load_transformer(replace(TINY, **variant), None, seed=1)
    save_transformer(net, tmp_path / layout, layout=layout)
    again = load("sana-0.6b-1024", weights=tmp_path / layout, device="cpu", dtype="float32")
    assert again.report.layout == layout
    for key, value in net.state_dict().items():
        assert torch.equal(value, again.transformer.state_dict()[key]), key
    other = layouts.ORIGINAL if layout == layouts.DIFFUSERS else layouts.DIFFUSERS
    save_transformer(again.transformer, tmp_path / "other", layout=other)
    third = load("sana-0.6b-1024", weights=tmp_path / "other", device="cpu", dtype="float32").transformer
    assert all(torch.equal(value, third.state_dict()[key]) for key, value in net.state_dict().items())


def test_original_pth_with_state_dict_and_training_leftovers_loads(tmp_path: Path) -> None:
    net = load_transformer(TINY, None, seed=2)
    files = save_transformer(net, tmp_path / "o", layout=layouts.ORIGINAL)
    source = open_checkpoint(files[0])
    state = {key: source.get(key).clone() for key in source.keys()}  # noqa: SIM118
    state["y_embedder.y_embedding"] = torch.zeros(300, 12)
    state["pos_embed"] = torch.zeros(1, 16, 32)
    folder = tmp_path / "pth"
    folder.mkdir()
    torch.save({"state_dict": state, "epoch": 3}, folder / "model.pth")
    (folder / "config.json").write_text(json.dumps(to_original(TINY)))
    again = load("sana-0.6b-1024", weights=folder, device="cpu", dtype="float32")
    assert torch.equal(again.transformer.out.weight, net.out.weight)


def test_published_configurations_survive_both_ways() -> None:
    assert from_diffusers(to_diffusers(TINY)) == TINY
    again = from_original(to_original(TINY))
    assert (again.width, again.layers, again.cross_heads) == (TINY.width, TINY.layers, TINY.cross_heads)


def test_missing_and_foreign_tensors_are_explained(tmp_path: Path) -> None:
    net = load_transformer(TINY, None)
    save_transformer(net, tmp_path)
    from safetensors.torch import load_file, save_file

    file = tmp_path / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state.pop("caption_norm.weight")
    save_file(state, file)
    with pytest.raises(CheckpointError, match="caption_norm"):
        load("sana-0.6b-1024", weights=tmp_path, device="cpu", dtype="float32")
    save_file({"encoder.weight": torch.zeros(2)}, file)
    with pytest.raises(CheckpointError, match="no Sana transformer"):
        load("sana-0.6b-1024", weights=tmp_path, device="cpu", dtype="float32")


def test_every_catalogue_entry_builds_on_meta_with_the_listed_parameters() -> None:
    registry = get_registry()
    seen = 0
    for name, card in registry.models().items():
        if card.get("plugin") != "sana" or card["status"] == "embedded":
            continue
        seen += 1
        model = load(name, weights="random", device="meta")
        assert sum(p.numel() for p in model.transformer.parameters()) == card["parameters"], name
    assert seen >= 15


def test_bad_options_are_refused() -> None:
    small = {"transformer": {"layers": 1, "heads": 2, "cross_heads": 2, "caption_channels": 8}}
    for options in (
        {"qant": "int8"},
        {"cache": "duo"},
        {"quant": "int3"},
        {"overrides": {"transformer": {"layerz": 2}}},
        {"overrides": {"transformer": {"cross_heads": 7}}},
    ):
        merged = {"overrides": small, **options}
        with pytest.raises(ZooError) as caught:
            load("sana-0.6b-1024", weights="random", device="cpu", dtype="float32", **merged)
        assert isinstance(caught.value, (ConfigError, InputError)), caught.value
