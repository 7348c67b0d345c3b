"""Tiling of the convolutional stages only: equal to the untiled result."""

from __future__ import annotations

import pytest
import torch
from zoo_dc_ae import exact, published
from zoo_dc_ae.autoencoder import DCAE


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
@pytest.mark.parametrize("tile", [(16, 16), (24, 40), (64, 8)])
def test_equals_untiled(style: str, tile: tuple[int, int]) -> None:
    model = tiny(style).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)
    config = model.config
    image = torch.rand(2, 3, 96, 72, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latents = model.encode(image)
        torch.testing.assert_close(exact.encode(model.encoder, config.encoder, image, tile), latents, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(exact.decode(model.decoder, config.decoder, latents, tile), model.decode(latents), rtol=1e-4, atol=1e-4)


def test_the_margin_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("sana").eval()
    image = torch.rand(1, 3, 96, 72) * 2 - 1
    with torch.no_grad():
        latents = model.encode(image)
        monkeypatch.setattr(exact, "decoder_margin", lambda coder: 0)
        assert not torch.allclose(exact.decode(model.decoder, model.config.decoder, latents, (16, 16)), model.decode(latents), atol=1e-2)
