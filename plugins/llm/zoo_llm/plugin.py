"""Hooks of the shared language-model floor."""

from __future__ import annotations

from zoo_core.hookspecs import hookimpl
from zoo_core.specs import CacheSpec, ComponentSpec, ConformanceSpec, EvaluatorSpec


@hookimpl
def zoo_caches() -> list[CacheSpec]:
    return [
        CacheSpec(name="full", build="zoo_llm.caches.plan:full_plan", summary="every head keeps everything, per-head layout"),
        CacheSpec(name="full-int8", build="zoo_llm.caches.plan:full_plan", storage="int8", summary="8-bit codes, scale per token and head"),
        CacheSpec(name="full-kv4", build="zoo_llm.caches.plan:full_plan", storage="int4", summary="4-bit codes, scale and zero per token, head and group"),
    ]


@hookimpl
def zoo_components() -> list[ComponentSpec]:
    return [
        ComponentSpec(name="quant.int8", kind="quant", build="zoo_llm.quant:weight_only_int8", summary="weight-only int8 by torchao"),
        ComponentSpec(name="quant.int4", kind="quant", build="zoo_llm.quant:weight_only_int4", summary="weight-only int4 by torchao"),
        ComponentSpec(name="adapter.peft", kind="adapter", build="zoo_llm.adapters:load_peft", summary="LoRA or another PEFT adapter folder"),
    ]


@hookimpl
def zoo_evaluators() -> list[EvaluatorSpec]:
    return [
        EvaluatorSpec(
            name="perplexity",
            task="causal-lm",
            build="zoo_llm.evaluation.perplexity:Perplexity",
            metrics={"perplexity": "lower", "nats_per_token": "lower"},
            summary="long-text perplexity",
        ),
        EvaluatorSpec(
            name="passkey",
            task="causal-lm",
            build="zoo_llm.evaluation.passkey:Passkey",
            metrics={"accuracy": "higher", "digits": "higher"},
            summary="passkey retrieval",
        ),
        EvaluatorSpec(
            name="needle",
            task="causal-lm",
            build="zoo_llm.evaluation.needle:Needle",
            metrics={"score": "higher"},
            summary="needle in a haystack, length x depth, with heat-map",
        ),
        EvaluatorSpec(
            name="longbench",
            task="causal-lm",
            build="zoo_llm.evaluation.longbench:LongBench",
            metrics={"score": "higher"},
            summary="LongBench-format tasks from local files",
        ),
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
    return [ConformanceSpec(name="llm", tiny={"smollm2-135m-instruct": {"overrides": tiny}})]
