"""What the plugin registers: data and targets only."""

from __future__ import annotations

from zoo_core.hookspecs import hookimpl
from zoo_core.specs import BenchmarkSpec, ClaimSpec, ConformanceSpec, ParitySpec, RecipeSpec, WeightsSpec

TINY = {
    "transformer": {
        "in_channels": 32,
        "out_channels": 32,
        "heads": 4,
        "head_dim": 8,
        "cross_heads": 2,
        "layers": 2,
        "caption_channels": 32,
        "sample_size": 2,
    },
    "text_tokens": 24,
    "instruction": False,
    "autoencoder": "dc-ae-emoji",
}


@hookimpl
def zoo_weights() -> list[WeightsSpec]:
    return [
        WeightsSpec(
            name="sana-diffusers",
            summary="a published diffusers folder or its transformer",
            keymap="zoo_sana.layouts:diffusers_keymap",
            detect=(r"^transformer_blocks\.0\.attn1\.to_q\.weight$",),
            read_config="zoo_sana.loading:read_json",
        ),
        WeightsSpec(
            name="sana-original",
            summary="a checkpoint of the reference code",
            keymap="zoo_sana.layouts:original_keymap",
            detect=(r"^blocks\.0\.attn\.qkv\.weight$", r"^x_embedder\.proj\.weight$"),
            read_config="zoo_sana.loading:read_json",
        ),
    ]


@hookimpl
def zoo_parity() -> list[ParitySpec]:
    return [ParitySpec(name=kind, run=f"zoo_sana.parity:{kind}") for kind in ("transformer", "schedulers", "controlnet", "pipeline")]


@hookimpl
def zoo_recipes() -> list[RecipeSpec]:
    return [
        RecipeSpec(
            name="sana/emoji",
            summary="the whole architecture at small scale on captioned emoji: rectified flow, text encoder trained along",
            run="zoo_sana.training.recipe:run",
            config_class="zoo_sana.training.config:EmojiTrainConfig",
            produces="sana-emoji",
        )
    ]


@hookimpl
def zoo_claims() -> list[ClaimSpec]:
    paper = "arXiv 2410.10629 and its repository's README"
    gpu = "one A100, FP16"
    return [
        ClaimSpec(
            name="sana-linear-attention-4096",
            summary="linear against softmax self-attention at 4096 px (time of one attention layer)",
            paper_value="linear instead of quadratic growth",
            unit="x",
            setting="16384 tokens, one layer of the 0.6B model",
            source=paper,
            measure="zoo_sana.claims:linear_attention",
            scaled="one attention layer on whatever device this is, not the whole model",
        ),
        ClaimSpec(
            name="sana-token-saving",
            summary="tokens of a 32x autoencoder against an 8x one with patch 2, 1024 px",
            paper_value=4.0,
            unit="x fewer tokens",
            setting="1024 px",
            source=paper,
            tolerance=0.0,
            measure="zoo_sana.claims:token_saving",
        ),
        *(
            ClaimSpec(
                name=f"sana-throughput-{size}-1024",
                summary=f"Sana-{size.upper()} images per second at 1024 px, batched",
                paper_value=value,
                unit="images/s",
                setting="1024 px, 20 steps, batch 10 here (the paper's batch is not stated)",
                source=paper,
                hardware=gpu,
                needs=("cuda",),
                measure=f"zoo_sana.claims:throughput_{size.replace('.', '_')}",
                scaled="random weights (speed does not depend on their values), text encoding not timed",
            )
            for size, value in (("0.6b", 1.7), ("1.6b", 1.0))
        ),
        ClaimSpec(
            name="sana-latency-0.6b-1024",
            summary="Sana-0.6B seconds per image at 1024 px, batch 1",
            paper_value=0.9,
            unit="s",
            setting="1024 px, 20 steps",
            source=paper,
            hardware=gpu,
            higher_is_better=False,
            needs=("cuda",),
            measure="zoo_sana.claims:latency_0_6b",
            scaled="random weights, text encoding not timed",
        ),
        ClaimSpec(
            name="sana-speedup-4k",
            summary="100x faster than FLUX-dev at 4096 px",
            paper_value=100.0,
            unit="x",
            setting="4096 px; 9.6 s against about 1023 s (recalled from the paper, not re-read)",
            source=paper,
            hardware=gpu,
            needs=("cuda", "weights:FLUX-dev"),
        ),
    ]


@hookimpl
def zoo_benchmarks() -> list[BenchmarkSpec]:
    return [
        BenchmarkSpec(
            name="sana-vs-diffusers",
            run="zoo_sana.benchmark:run",
            against="diffusers SanaPipeline, same weights, one process",
            summary="denoise step of Sana-0.6B shapes and whole pipeline at reduced depth",
        )
    ]


@hookimpl
def zoo_conformance() -> list[ConformanceSpec]:
    return [ConformanceSpec(name="sana", tiny={"sana-0.6b-1024": {"overrides": TINY}})]
