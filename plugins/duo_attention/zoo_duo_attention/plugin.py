"""Hooks of the DuoAttention plugin."""

from __future__ import annotations

from zoo_core.hookspecs import hookimpl
from zoo_core.specs import BenchmarkSpec, CacheSpec, ClaimSpec, ConformanceSpec, ParitySpec, RecipeSpec

SOURCE = "arXiv 2410.10819 and its repository's README"


@hookimpl
def zoo_caches() -> list[CacheSpec]:
    build = "zoo_duo_attention.cache:duo_plan"
    policy = "per-head full | sink-recent"
    return [
        CacheSpec(name="duo", build=build, policy=policy, summary="retrieval heads keep everything, streaming heads sinks + recent"),
        CacheSpec(name="duo-int8", build=build, policy=policy, storage="int8", summary="duo with 8-bit storage"),
        CacheSpec(name="duo-kv4", build=build, policy=policy, storage="int4", summary="duo with 4-bit storage"),
    ]


@hookimpl
def zoo_recipes() -> list[RecipeSpec]:
    return [
        RecipeSpec(
            name="duo/heads",
            run="zoo_duo_attention.training.recipe:train_heads",
            config_class="zoo_duo_attention.training.recipe:HeadsConfig",
            summary="learn which kv-heads need the whole context",
        )
    ]


@hookimpl
def zoo_parity() -> list[ParitySpec]:
    kinds = ("inference", "train-steps", "int4-kv", "pattern-dir", "published-patterns", "learnt-pattern", "multi-passkey-dataset")
    return [ParitySpec(name=kind, run=f"zoo_duo_attention.parity:{kind.replace('-', '_')}") for kind in kinds]


@hookimpl
def zoo_claims() -> list[ClaimSpec]:
    def claim(name: str, value: float, setting: str, *, scaled: str = "", unit: str = "x", tolerance: float | None = None) -> ClaimSpec:
        return ClaimSpec(
            name=f"duo-{name}",
            summary=f"DuoAttention: {name.replace('-', ' ')}",
            paper_value=value,
            unit=unit,
            setting=setting,
            source=SOURCE,
            hardware="one A100-80G",
            tolerance=tolerance,
            measure=f"zoo_duo_attention.claims:{name.replace('-', '_')}",
            scaled=scaled,
        )

    mha, gqa = "Llama-2-7B, 25 % full heads", "Llama-3-8B, 50 % full heads"
    layer = "one decoder layer with random weights at a shorter context, on whatever device this is"
    counted = "exact cache and weight bytes instead of a GPU's peak; the paper's context length is not stated"
    return [
        claim("memory-mha", 2.55, f"{mha}, best of the KV-budget sweep", scaled=f"{counted}; here 100,000 tokens"),
        claim("memory-gqa", 1.67, f"{gqa}, best of the KV-budget sweep", scaled=f"{counted}; here 320,000 tokens"),
        claim("decode-mha", 2.18, f"{mha}, latency of one token", scaled=layer),
        claim("decode-gqa", 1.50, f"{gqa}, latency of one token", scaled=layer),
        claim("prefill-mha", 1.73, f"{mha}, 100K tokens, chunked", scaled=layer),
        claim("prefill-gqa", 1.63, f"{gqa}, 320K tokens, chunked", scaled=layer),
        claim("capacity-kv4", 3.3, f"{gqa}, 8-bit weights, 4-bit cache, 80 GB", unit="million tokens", scaled="counted from exact bytes, activations left out"),
    ]


@hookimpl
def zoo_benchmarks() -> list[BenchmarkSpec]:
    return [
        BenchmarkSpec(
            name="duo-vs-dynamic-cache",
            run="zoo_duo_attention.benchmark:run",
            against="transformers DynamicCache + SDPA",
            summary="ms per token and cache bytes by context length",
        )
    ]


@hookimpl
def zoo_conformance() -> list[ConformanceSpec]:
    tiny = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 300,
        "max_position_embeddings": 512,
    }
    small = {"pattern": "random", "sink": 4, "recent": 8}  # the bundled patterns are for the full number of heads
    caches = {f"cache:{name}": small for name in ("duo", "duo-int8", "duo-kv4")}
    return [ConformanceSpec(name="duo-attention", tiny={"llama-3-8b-1048k": {"overrides": tiny}, **caches})]
