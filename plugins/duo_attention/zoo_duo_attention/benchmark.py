"""Benchmark: a small real architecture (SmolLM2-135M shapes, random weights) with duo caches against transformers' own cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo_core.bench import BenchContext


def run(context: BenchContext) -> list[dict[str, Any]]:
    """One row per context length and cache: milliseconds per decoded token and cache bytes, measured in turn with ``DynamicCache``.

    The context is written into the caches directly (random keys and values of the right shape), so that long contexts need no long prefill; speed
    does not depend on values.
    """
    import torch

    from zoo_core.loading import load
    from zoo_core.specs import resolve

    device = str(context.device)
    dtype = "bfloat16"
    lengths = (4096, 8192, 16384, 32768)
    handle: Any = load("smollm2-135m-instruct", weights="random", seed=context.seed, device=device, dtype=dtype, overrides={"max_position_embeddings": 65536})
    config = handle.module.config
    layers, kv, dim = config.num_hidden_layers, config.num_key_value_heads, config.head_dim
    rows = []
    duo_plan = resolve("zoo_duo_attention.cache:duo_plan")
    dynamic = handle.plan
    heads = {"pattern": "random", "sparsity": 0.5, "sink": 64, "recent": 256}
    stores = {"duo": "native", "duo-int8": "int8", "duo-kv4": "int4"}
    plans = {name: duo_plan(handle, **heads, storage=storage) for name, storage in stores.items()}
    for length in lengths:
        states = torch.randn((1, kv, length, dim), dtype=getattr(torch, dtype), device=device)

        def filled(plan: Any, states: torch.Tensor = states, length: int = length) -> Any:
            cache = plan.make(reserve=length + 64)
            for index in range(layers):
                layer = cache.layers[index] if hasattr(cache, "memory") else None
                if layer is None:
                    cache.update(states, states, index)
                else:
                    layer.append(states, states)
            return cache

        token = torch.tensor([[5]], device=device)

        def decode(plan: Any, cache: Any, token: torch.Tensor = token) -> None:
            handle.set_cache(plan)
            with torch.inference_mode():
                handle.module(input_ids=token, past_key_values=cache, use_cache=True)

        base = filled(dynamic)
        base_bytes = 2 * layers * states.numel() * states.element_size()
        for name, plan in plans.items():
            cache = filled(plan)
            times = context.time({"ours": lambda p=plan, c=cache: decode(p, c), "other": lambda c=base: decode(dynamic, c)})
            row = context.row(f"decode {length} {name}", times, other="DynamicCache + SDPA")
            rows.append({**row, "context": length, "cache": name, "ours_bytes": cache.memory().used, "other_bytes": base_bytes})
        handle.set_cache(dynamic)
    return rows
