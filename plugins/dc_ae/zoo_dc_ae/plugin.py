"""What the plugin registers: data and targets only."""

from __future__ import annotations

from zoo_core import hookimpl
from zoo_core.specs import BenchmarkSpec, ClaimSpec, ConformanceSpec, EvaluatorSpec, ParitySpec, RecipeSpec, WeightsSpec

TINY_CODER = {
    "widths": [16, 32, 64],
    "depths": [1, 1, 1],
    "blocks": ["res", "res", "vit"],
    "scales": [[], [], [5]],
    "norms": ["rms_norm"] * 3,
    "activations": ["silu"] * 3,
}
TINY_AUTOENCODER = {
    "latent_channels": 8,
    "encoder": {**TINY_CODER, "resample": "conv"},
    "decoder": {**TINY_CODER, "resample": "interpolate"},
}
TINY_DIFFUSION = {"input_size": 4, "in_channels": 8, "hidden_size": 32, "depth": 2, "num_heads": 2, "num_classes": 10, "autoencoder": TINY_AUTOENCODER}


@hookimpl
def zoo_weights() -> list[WeightsSpec]:
    return [
        WeightsSpec(
            name="dc-ae-diffusers",
            summary="files of diffusers' AutoencoderDC",
            keymap="zoo_dc_ae.layouts:diffusers_keymap",
            detect=(r"^encoder\.down_blocks\.",),
            read_config="zoo_dc_ae.published:read_config",
        ),
        WeightsSpec(
            name="dc-ae-original",
            summary="files of the reference repository",
            keymap="zoo_dc_ae.layouts:original_keymap",
            detect=(r"^encoder\.stages\.\d+\.op_list\.",),
            read_config="zoo_dc_ae.published:read_config",
        ),
        WeightsSpec(
            name="dc-ae-native",
            summary="the module's own keys, as the recipe writes them",
            detect=(r"^encoder\.stages\.\d+\.\d+\.",),
            read_config="zoo_dc_ae.published:read_config",
        ),
        WeightsSpec(
            name="dc-ae-diffusion",
            summary="diffusion model, alone or in one file with its autoencoder",
            keymap="zoo_dc_ae.layouts:diffusion_keymap",
            detect=(r"^(diffusion_model\.)?(in_blocks|blocks)\.0\.attn\.qkv\.weight$",),
            read_config="zoo_dc_ae.published:read_config",
        ),
    ]


@hookimpl
def zoo_parity() -> list[ParitySpec]:
    return [ParitySpec(name=kind, run=f"zoo_dc_ae.parity:{kind}") for kind in ("autoencoder", "uvit", "dit")]


@hookimpl
def zoo_evaluators() -> list[EvaluatorSpec]:
    return [
        EvaluatorSpec(
            name="reconstruction",
            summary="PSNR, SSIM, LPIPS and rFID of pictures after encoder and decoder, by the paper's protocol (resize, centre crop, uint8)",
            task="image-autoencoder",
            build="zoo_core.evaluation.reconstruction:Reconstruction",
            metrics={"psnr": "higher", "ssim": "higher", "lpips": "lower", "rfid": "lower"},
        )
    ]


@hookimpl
def zoo_recipes() -> list[RecipeSpec]:
    return [
        RecipeSpec(
            name="dc-ae/autoencoder",
            summary="the paper's three training phases: all at low resolution, the latent's neighbours at high resolution, the decoder's head with a critic",
            run="zoo_dc_ae.training.recipe:run",
            config_class="zoo_dc_ae.training.config:AutoencoderTrainConfig",
            produces="dc-ae-emoji",
        )
    ]


@hookimpl
def zoo_claims() -> list[ClaimSpec]:
    source = "arXiv 2410.10733"
    table = [
        ("imagenet-256-f32c32", "dc-ae-f32c32-in-1.0", 256, "ImageNet", 0.69),
        ("imagenet-512-f64c128", "dc-ae-f64c128-in-1.0", 512, "ImageNet", 0.22),
        ("mjhq-1024-sana-1.0", "dc-ae-f32c32-sana-1.0", 1024, "MJHQ-30K", 0.339),
        ("mjhq-1024-sana-1.1", "dc-ae-f32c32-sana-1.1", 1024, "MJHQ-30K", 0.314),
    ]
    rfid = [
        ClaimSpec(
            name=f"dc-ae-rfid-{name}",
            summary=f"reconstruction FID of {model} at {size} pixels",
            paper_value=value,
            setting=f"{data}, {size} px, {model}",
            source=source if data == "ImageNet" else "upstream README (f32c32-sana)",
            higher_is_better=False,
            needs=(f"weights:{model}", f"data:{data}"),
        )
        for name, model, size, data, value in table
    ]
    speed = [
        ClaimSpec(
            name=f"dc-ae-uvit-h-{what}-speedup",
            summary=f"U-ViT-H {what} on f64 latents against SD-VAE-f8 with patch size 2",
            paper_value=value,
            unit="x",
            setting="ImageNet 512 px, UViT-H, DC-AE-f64 patch 1 against SD-VAE-f8 patch 2",
            source=source,
            hardware="H100",
            measure=f"zoo_dc_ae.claims:{what}_speedup",
            scaled="without CUDA: smaller networks of the same token counts, random weights, CPU; with CUDA: full-size U-ViT-H, random weights",
        )
        for what, value in (("inference", 19.1), ("training", 17.9))
    ]
    return rfid + speed


@hookimpl
def zoo_benchmarks() -> list[BenchmarkSpec]:
    return [
        BenchmarkSpec(
            name="dc-ae-vs-diffusers",
            summary="encode and decode at 512 and 1024 pixels, same weights, one process",
            run="zoo_dc_ae.benchmark:run",
            against="diffusers AutoencoderDC",
        )
    ]


@hookimpl
def zoo_conformance() -> list[ConformanceSpec]:
    autoencoders = ("dc-ae-f32c32-in-1.0", "dc-ae-f32c32-sana-1.1")
    tiny = {name: {"overrides": {f"{key}": value for key, value in TINY_AUTOENCODER.items()}} for name in autoencoders}
    tiny["dc-ae-f32c32-in-1.0-uvit-s-in-512px"] = {"overrides": dict(TINY_DIFFUSION)}
    return [ConformanceSpec(name="dc-ae", summary="tiny autoencoders and a tiny U-ViT", tiny=tiny)]
