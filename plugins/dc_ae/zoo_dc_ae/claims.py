"""The paper's speed-up of U-ViT-H at 512 pixels: DC-AE-f64 latents with patch 1 against SD-VAE-f8 latents with patch 2.

The token counts are the paper's (8 x 8 = 64 against 32 x 32 = 1024); with CUDA the network is U-ViT-H itself, on a CPU a smaller one (said in the result).
Weights are random: speed does not depend on them.  ``value`` is the ratio of the denoising network alone; rows give it with decoding too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from zoo_core.bench import time_interleaved
from zoo_dc_ae.autoencoder import DCAE
from zoo_dc_ae.config import AutoencoderConfig, CoderConfig
from zoo_dc_ae.diffusion.config import DiffusionConfig
from zoo_dc_ae.diffusion.uvit import UViT

if TYPE_CHECKING:
    from zoo_core.claims import ClaimContext

EVALUATIONS = 30
"""Network evaluations per picture (DPM-Solver of the paper's models)."""


def networks(device: torch.device) -> tuple[UViT, UViT, dict[str, Any]]:
    """(on f64 latents with patch 1, on f8 latents with patch 2, what they are)."""
    full = device.type == "cuda"
    size = {"hidden_size": 1152, "depth": 28, "num_heads": 16} if full else {"hidden_size": 256, "depth": 6, "num_heads": 8}
    ours = DiffusionConfig(input_size=8, patch_size=1, in_channels=128, **size)
    theirs = replace(ours, input_size=64, patch_size=2, in_channels=4)
    dtype = torch.bfloat16 if full else torch.float32
    one, other = (UViT(config).to(device=device, dtype=dtype) for config in (ours, theirs))
    return (
        one,
        other,
        {**size, "tokens": [ours.tokens, theirs.tokens], "dtype": str(dtype)[6:], "pixels": 512, "full_size": full, "threads": torch.get_num_threads()},
    )


def _batch(network: UViT, batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    config = network.config
    weight = network.pos_embed
    x = torch.randn(batch, config.in_channels, config.input_size, config.input_size, device=weight.device, dtype=weight.dtype)
    return x, torch.full((batch,), 500.0, device=weight.device), torch.zeros(batch, dtype=torch.int64, device=weight.device)


def _decoders(device: torch.device, full: bool) -> tuple[Any, Any] | None:
    """Decoders of both autoencoders (a quarter of the published width on CPU); None without diffusers."""
    try:
        from diffusers import AutoencoderKL
    except ImportError:
        return None
    part = 1 if full else 4
    widths = [width // part for width in (128, 256, 512, 512, 1024, 1024, 2048)]
    half: dict[str, Any] = {"widths": widths, "blocks": ["res"] * 3 + ["vit"] * 4, "scales": [[]] * 7}
    encoder = CoderConfig(**half, depths=[0, 4, 8, 2, 2, 2, 2], norms=["rms_norm"] * 7, activations=["silu"] * 7, resample="pixel_unshuffle")
    decoder = CoderConfig(
        **half, depths=[0, 5, 10, 2, 2, 2, 2], norms=["batch_norm"] * 3 + ["rms_norm"] * 4, activations=["relu"] * 3 + ["silu"] * 4, resample="pixel_shuffle"
    )
    ours = DCAE(AutoencoderConfig(latent_channels=128, encoder=encoder, decoder=decoder)).eval().to(memory_format=torch.channels_last)
    theirs = AutoencoderKL(
        block_out_channels=[width // part for width in (128, 256, 512, 512)],
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=32 // part,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
    ).eval()
    return (module.to(device=device, dtype=torch.bfloat16 if full else torch.float32) for module in (ours, theirs))  # type: ignore[return-value]


def inference_speedup(context: ClaimContext) -> dict[str, Any]:
    """Ratio of pictures per second while denoising; a second row adds decoding."""
    torch.manual_seed(context.seed)
    one, other, setting = networks(context.device)
    batch = 64 if setting["full_size"] else 2
    inputs = {"ours": (one.eval(), _batch(one, batch)), "other": (other.eval(), _batch(other, batch))}
    with torch.no_grad():
        calls = {name: (lambda network=network, data=data: network(*data)) for name, (network, data) in inputs.items()}
        times = time_interleaved(calls, repeats=7, warmup=1, seconds=context.seconds / 3, device=context.device)
        rows = [_row("denoising network", times["ours"].median_ms, times["other"].median_ms, batch)]
        decoders = _decoders(context.device, setting["full_size"]) if context.left > 0 else None
        if decoders is not None:
            ours, theirs = decoders
            dtype = one.pos_embed.dtype
            z, y = torch.randn(1, 128, 8, 8, device=context.device, dtype=dtype), torch.randn(1, 4, 64, 64, device=context.device, dtype=dtype)
            both = time_interleaved(
                {"ours": lambda: ours.decode(z), "other": lambda: theirs.decode(y)}, repeats=5, warmup=1, seconds=context.left / 2, device=context.device
            )
            rows.append(_row("decoder", both["ours"].median_ms, both["other"].median_ms, 1))
            per_picture = {name: EVALUATIONS * times[name].median_ms / batch + both[name].median_ms for name in ("ours", "other")}
            rows.append(_row(f"{EVALUATIONS} evaluations and decoding", per_picture["ours"], per_picture["other"], 1))
    value = rows[0]["ratio"]
    return {"value": value, "note": f"denoising network alone; {_described(setting)}", "rows": rows, "setting": setting | {"batch": batch}}


def training_speedup(context: ClaimContext) -> dict[str, Any]:
    """Ratio of pictures per second of a training step (forward, backward, AdamW) on stored latents."""
    torch.manual_seed(context.seed)
    one, other, setting = networks(context.device)
    batch = 32 if setting["full_size"] else 2

    def step(network: UViT) -> Any:
        optimiser = torch.optim.AdamW(network.parameters(), lr=2e-4, weight_decay=0.03, betas=(0.99, 0.99))
        x, t, labels = _batch(network.train(), batch)
        target = torch.randn_like(x)

        def run() -> None:
            loss = (network(x, t, labels).float() - target.float()).square().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()

        return run

    times = time_interleaved({"ours": step(one), "other": step(other)}, repeats=7, warmup=1, seconds=context.seconds / 2, device=context.device)
    rows = [_row("training step", times["ours"].median_ms, times["other"].median_ms, batch)]
    return {"value": rows[0]["ratio"], "note": _described(setting), "rows": rows, "setting": setting | {"batch": batch}}


def _row(what: str, ours: float, other: float, batch: int) -> dict[str, Any]:
    return {"what": what, "ours_ms": ours, "other_ms": other, "ratio": other / ours, "batch": batch}


def _described(setting: dict[str, Any]) -> str:
    size = "U-ViT-H" if setting["full_size"] else f"U-ViT of width {setting['hidden_size']}, depth {setting['depth']}"
    return f"{size}, {setting['tokens'][0]} against {setting['tokens'][1]} tokens, {setting['dtype']}, random weights"
