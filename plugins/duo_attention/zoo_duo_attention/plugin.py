"""Hooks of the DuoAttention plugin."""

from __future__ import annotations

from zoo_core.hookspecs import hookimpl
from zoo_core.specs import CacheSpec, ParitySpec, RecipeSpec


@hookimpl
def zoo_caches() -> list[CacheSpec]:
    build = "zoo_duo_attention.cache:duo_plan"
    return [
        CacheSpec(name="duo", build=build, policy="per-head full | sink-recent", summary="retrieval heads keep everything, streaming heads sinks + recent"),
        CacheSpec(name="duo-int8", build=build, policy="per-head full | sink-recent", storage="int8", summary="duo with 8-bit storage"),
        CacheSpec(name="duo-kv4", build=build, policy="per-head full | sink-recent", storage="int4", summary="duo with 4-bit storage"),
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
    kinds = {
        "inference": "inference",
        "train-steps": "train_steps",
        "int4-kv": "int4_kv",
        "pattern-dir": "pattern_dir",
        "published-patterns": "published_patterns",
        "learnt-pattern": "learnt_pattern",
        "multi-passkey-dataset": "multi_passkey_dataset",
    }
    return [ParitySpec(name=kind, run=f"zoo_duo_attention.parity:{function}") for kind, function in kinds.items()]
