"""Records the small autoencoder cases below ``tests/data`` with diffusers' ``AutoencoderDC``: ``python record_cases.py`` (needs diffusers)."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderDC
from safetensors.torch import save_file

HERE = Path(__file__).parent / "data"
STYLES = {
    "tiny-sana-style": {
        "blocks": ["ResBlock", "EfficientViTBlock", "EfficientViTBlock"],
        "widths": [8, 16, 16],
        "depths": ([1, 1, 1], [2, 1, 1]),
        "scales": [[], [5], [3, 5]],
        "config": {"downsample_block_type": "conv", "upsample_block_type": "interpolate", "decoder_norm_types": "rms_norm", "decoder_act_fns": "silu"},
    },
    "tiny-in-style": {
        "blocks": ["ResBlock", "ResBlock", "EfficientViTBlock"],
        "widths": [8, 16, 16],
        "depths": ([0, 1, 1], [0, 2, 1]),
        "scales": [[], [], []],
        "config": {
            "downsample_block_type": "pixel_unshuffle",
            "upsample_block_type": "pixel_shuffle",
            "decoder_norm_types": ["batch_norm", "batch_norm", "rms_norm"],
            "decoder_act_fns": ["relu", "relu", "silu"],
        },
    },
}


def record(name: str, style: dict, seed: int) -> None:
    torch.manual_seed(seed)
    encoder_depths, decoder_depths = style["depths"]
    model = AutoencoderDC(
        latent_channels=8,
        attention_head_dim=16,
        encoder_block_types=style["blocks"],
        decoder_block_types=style["blocks"],
        encoder_block_out_channels=style["widths"],
        decoder_block_out_channels=style["widths"],
        encoder_layers_per_block=encoder_depths,
        decoder_layers_per_block=decoder_depths,
        encoder_qkv_multiscales=style["scales"],
        decoder_qkv_multiscales=style["scales"],
        scaling_factor=0.4,
        **style["config"],
    )
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    for key, value in model.named_parameters():
        if value.ndim == 1:
            value.data.normal_(mean=1.0 if "norm" in key and key.endswith("weight") else 0.0, std=0.2)
    model.eval()
    folder = HERE / name
    folder.mkdir(parents=True, exist_ok=True)
    model.save_config(folder)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "checkpoint.safetensors")
    io = {}
    with torch.no_grad():
        for i, size in enumerate(((2, 32, 24), (1, 16, 20))):
            image = torch.rand(size[0], 3, size[1], size[2]) * 2 - 1
            latent = model.encode(image).latent
            io |= {f"in{i}.image": image, f"out{i}.latent": latent, f"out{i}.reconstruction": model.decode(latent).sample}
        image = torch.rand(1, 3, 44, 36) * 2 - 1
        latent = model.encode(image).latent
        io |= {"tiled.image": image, "tiled.latent_untiled": latent, "tiled.reconstruction_untiled": model.decode(latent).sample}
        tiling = {"tile_sample_min_height": 24, "tile_sample_min_width": 16, "tile_sample_stride_height": 16, "tile_sample_stride_width": 12}
        model.enable_tiling(**tiling)
        io |= {"tiled.latent_tiled": model.encode(image).latent, "tiled.decode_tiled": model.decode(latent).sample}
    save_file({key: value.contiguous() for key, value in io.items()}, folder / "io.safetensors")
    case = {"schema": 1, "paper": "dc-ae", "kind": "autoencoder", "layout": "diffusers", "tiling": tiling}
    (folder / "case.json").write_text(json.dumps(case, indent=1) + "\n")


if __name__ == "__main__":
    for seed, (name, style) in enumerate(STYLES.items(), 7):
        record(name, style, seed)
