"""Both published layouts: key maps, manifests, round trips, detection from bare keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from zoo_dc_ae import layouts, published
from zoo_dc_ae.autoencoder import DCAE
from zoo_dc_ae.diffusion import config as diffusion_config
from zoo_dc_ae.diffusion.dit import DiT
from zoo_dc_ae.diffusion.uvit import UViT

from zoo_core.checkpoint import DictSource, TensorSource
from zoo_core.errors import CheckpointError
from zoo_core.parity import golden_folder

GOLDEN = golden_folder("dc-ae")
MANIFESTS = sorted(GOLDEN.glob("manifest-*.json")) if GOLDEN.is_dir() else []
needs_golden = [pytest.mark.golden, pytest.mark.skipif(not MANIFESTS, reason=f"no recorded data at {GOLDEN} (set ZOO_GOLDEN)")]


class Shapes(TensorSource):
    """Keys and shapes only, as a manifest lists them."""

    def __init__(self, shapes: dict[str, list[int]]) -> None:
        self.shapes = shapes

    def keys(self) -> list[str]:
        return list(self.shapes)

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self.shapes[key])

    def dtype(self, key: str) -> torch.dtype:
        return torch.int64 if key.endswith("num_batches_tracked") else torch.float32


def tiny(style: str) -> DCAE:
    half = {"widths": [8, 16, 32, 64], "blocks": ["res", "res", "vit", "vit"]}
    if style == "sana":
        data = {"encoder": half | {"depth_list": [1, 1, 1, 1]}, "decoder": half | {"depth_list": [2, 1, 1, 1]}}
    else:
        data = {"encoder": half | {"depth_list": [0, 2, 1, 1]}, "decoder": half | {"depth_list": [0, 1, 1, 1]}}
    vit = "EViTS5_GLU" if style == "sana" else "EViT_GLU"
    for side in data.values():
        side |= {"width_list": side.pop("widths"), "block_type": ["ResBlock", "ResBlock", vit, vit]}
        side.pop("blocks")
    if style == "sana":
        data["encoder"]["downsample_block_type"] = "Conv"
        data["decoder"] |= {"upsample_block_type": "InterpolateConv"}
    else:
        data["decoder"] |= {"norm": ["bn2d", "bn2d", "trms2d", "trms2d"], "act": ["relu", "relu", "silu", "silu"]}
    torch.manual_seed(0)
    return DCAE(published.from_original(data | {"latent_channels": 16, "scaling_factor": 0.5}))


@pytest.mark.parametrize("style", ["sana", "in"])
@pytest.mark.parametrize("layout", [layouts.DIFFUSERS, layouts.ORIGINAL])
def test_export_and_reload_are_exact(style: str, layout: str) -> None:
    state = tiny(style).state_dict()
    keymap = layouts.KEYMAPS[layout](tiny(style).config)
    exported = keymap.inverse().apply(state)
    assert layouts.autoencoder_layout(exported.keys()) == layout
    back = keymap.apply({key: exported.get(key) for key in exported})
    assert sorted(back.keys()) == sorted(state)
    for key, value in state.items():
        assert torch.equal(back.get(key), value) and back.get(key).shape == value.shape


@pytest.mark.parametrize("style", ["sana", "in"])
@pytest.mark.parametrize("layout", [layouts.DIFFUSERS, layouts.ORIGINAL, layouts.NATIVE])
def test_bare_keys_reveal_the_configuration(style: str, layout: str) -> None:
    model = tiny(style)
    exported = layouts.KEYMAPS[layout](model.config).inverse().apply(model.state_dict())
    assert layouts.infer_config(exported, base=model.config) == model.config


@pytest.mark.parametrize("style", ["sana", "in"])
def test_configuration_forms_round_trip(style: str) -> None:
    config = tiny(style).config
    assert published.from_published(json.loads(json.dumps(published.to_original(config)))) == config
    assert published.from_published(json.loads(json.dumps(published.to_diffusers(config)))) == config


def test_thirds_of_the_fused_weight_are_not_q_k_v() -> None:
    """to_q/to_k/to_v of the diffusers layout are consecutive thirds of the interleaved rows (trap 1 of the fact sheet)."""
    model = tiny("sana")
    key = "encoder.stages.3.0.attn.qkv.weight"
    exported = layouts.diffusers_keymap(model.config).inverse().apply(model.state_dict())
    rows = model.state_dict()[key][:, :, 0, 0]
    for index, name in enumerate(("to_q", "to_k", "to_v")):
        assert torch.equal(exported.get(f"encoder.down_blocks.3.0.attn.{name}.weight"), rows[64 * index : 64 * (index + 1)])


@pytest.mark.parametrize("path", MANIFESTS or [pytest.param(Path("manifest"), marks=needs_golden)], ids=lambda p: p.stem)
@pytest.mark.golden
def test_manifest(path: Path) -> None:
    manifest = json.loads(path.read_text())
    tensors = manifest["tensors"]
    if "uvit" in path.name or "dit" in path.name:
        config = diffusion_config.from_original(manifest["config"])
        with torch.device("meta"):
            module = (UViT if config.network == "uvit" else DiT)(config)
        view = layouts.diffusion_keymap(config).apply(Shapes(tensors))
        assert sum(p.numel() for p in module.parameters() if p.requires_grad) == manifest["trainable_parameters"]
    else:
        config = published.from_published(manifest["config"])
        with torch.device("meta"):
            module = DCAE(config)
        layout = layouts.autoencoder_layout(tensors)
        view = layouts.KEYMAPS[layout](config).apply(Shapes(tensors))
        assert layouts.infer_config(Shapes(tensors), base=config) == config
        back = layouts.KEYMAPS[layout](config).inverse().apply(module.state_dict())
        assert {key: list(back.shape(key)) for key in back} == tensors
    assert {key: view.shape(key) for key in view} == {key: tuple(value.shape) for key, value in module.state_dict().items()}
    assert sum(p.numel() for p in module.parameters()) == manifest["parameters"]


def test_foreign_keys_are_refused() -> None:
    with pytest.raises(CheckpointError, match="not a DC-AE autoencoder"):
        layouts.infer_config(DictSource({"encoder.conv_in.weight": torch.zeros(1)}))
