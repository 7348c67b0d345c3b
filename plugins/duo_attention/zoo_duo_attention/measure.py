"""Measurements behind the claims and the benchmark: exact cache bytes at full size, and speed of one decoder layer at full width.

Bytes come from the real stores fed with meta tensors (shapes without memory).  Speed runs one transformers decoder layer of the model's shapes with
random weights: a
whole model's attention share grows with length in the same way, because all layers are alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo_core.interfaces import TokenPolicy
from zoo_duo_attention.patterns import binarise, find_pattern

SHAPES: dict[str, dict[str, Any]] = {
    "llama-2-7b-32k": {
        "pattern": "Llama-2-7B-32K-Instruct",
        "sparsity": 0.75,
        "layers": 32,
        "kv_heads": 32,
        "parameters": 6_738_415_616,
        "intermediate": 11008,
    },
    "llama-3-8b-1048k": {
        "pattern": "Llama-3-8B-Instruct-Gradient-1048k",
        "sparsity": 0.5,
        "layers": 32,
        "kv_heads": 8,
        "parameters": 8_030_261_248,
        "intermediate": 14336,
    },
}
"""Full-size shapes (fact sheet, section 3); head size 128, 32 query heads, width 4096."""


def rows_for(name: str, *, sparsity: float | None = None, sink: int = 64, recent: int = 256) -> list[list[TokenPolicy]]:
    """Token policies of a full-size model by its published pattern."""
    shape = SHAPES[name]
    full = binarise(find_pattern(shape["pattern"]).alphas, sparsity=shape["sparsity"] if sparsity is None else sparsity)
    stream = TokenPolicy("sink-recent", sink, recent)
    return [[TokenPolicy() if head else stream for head in row] for row in full.tolist()]


def cache_bytes(rows: Sequence[Sequence[TokenPolicy]], tokens: int, *, head_dim: int = 128, storage: str = "native") -> int:
    """Exact bytes of a cache in a 16-bit model after ``tokens`` tokens (no padding, batch 1)."""
    import torch
    from zoo_llm.caches.layer import PolicyLayer

    total = 0
    memory: dict[tuple[int, ...], int] = {}
    for row in rows:
        key = (sum(p.kind == "full" for p in row), len(row))
        if key not in memory:
            layer = PolicyLayer(row, storage)
            states = torch.empty((1, len(row), tokens, head_dim), dtype=torch.float16, device="meta")
            layer.append(states, states)
            memory[key] = layer.memory().used
        total += memory[key]
    return total


def memory_ratio(name: str, tokens: int, *, storage: str = "native", with_weights: bool = True) -> dict[str, float]:
    """Bytes of full attention over bytes with the pattern, weights (16-bit) counted or not."""
    shape = SHAPES[name]
    rows = rows_for(name)
    plain = cache_bytes([[TokenPolicy()] * shape["kv_heads"]] * shape["layers"], tokens)
    duo = cache_bytes(rows, tokens, storage=storage)
    weights = 2 * shape["parameters"] if with_weights else 0
    ratio = (plain + weights) / (duo + weights)
    return {"ratio": ratio, "kv_ratio": plain / duo, "full_bytes": float(plain), "duo_bytes": float(duo), "weight_bytes": float(weights)}


def capacity(name: str, budget: float, *, weight_bytes_per_parameter: float, storage: str) -> int:
    """Largest number of tokens whose cache fits ``budget`` bytes beside the weights (activations not counted)."""
    room = budget - SHAPES[name]["parameters"] * weight_bytes_per_parameter
    rows = rows_for(name)
    low, high = 0, 1 << 24
    while high - low > 1024:
        middle = (low + high) // 2
        low, high = (middle, high) if cache_bytes(rows, middle, storage=storage) <= room else (low, middle)
    return low


def layer_speed(
    name: str,
    tokens: int,
    *,
    phase: str,
    chunk: int = 2048,
    repeats: int = 5,
    device: str = "cpu",
    dtype: str = "bfloat16",
    seed: int = 0,
    full_heads: int | None = None,
) -> dict[str, float]:
    """Seconds of one decoder layer, measured in turn: transformers' ``DynamicCache`` with SDPA, this cache with all heads full, and with the
    pattern's average layer.

    ``ratio`` is full over duo in the same code (what the paper compares); ``ratio_dynamic`` is against transformers' own cache, which also copies
    itself at every step.

    Args:
        tokens: Context length.
        phase: ``"decode"`` (one token on a context of ``tokens``) or ``"prefill"`` (the whole context in chunks).
        full_heads: Full kv-heads of the layer (default: the pattern's share, rounded).
    """
    import torch
    from transformers import AutoConfig, DynamicCache
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding
    from zoo_llm.caches import attention
    from zoo_llm.caches.layer import PolicyCache, PolicyLayer

    shape = SHAPES[name]
    kv = shape["kv_heads"]
    config = AutoConfig.for_model(
        "llama",
        hidden_size=4096,
        intermediate_size=shape["intermediate"],
        num_hidden_layers=1,
        num_attention_heads=32,
        num_key_value_heads=kv,
        max_position_embeddings=1 << 20,
    )
    kind = getattr(torch, dtype)
    torch.manual_seed(seed)
    with torch.device(device):
        layer = LlamaDecoderLayer(config, 0).to(kind).eval()
        rotary = LlamaRotaryEmbedding(config)
    count = round(kv * (1 - shape["sparsity"])) if full_heads is None else full_heads
    policies = {"full": [TokenPolicy()] * kv, "duo": [TokenPolicy()] * count + [TokenPolicy("sink-recent", 64, 256)] * (kv - count)}
    kinds = ("dynamic", "full", "duo")
    attention.register()

    def forward(cache: Any, states: torch.Tensor, start: int) -> torch.Tensor:
        positions = torch.arange(start, start + states.shape[1], device=device)[None]
        mask = None
        if config._attn_implementation == "sdpa" and states.shape[1] > 1 and start:
            columns = torch.arange(start + states.shape[1], device=device)
            mask = (columns[None] <= positions[0][:, None])[None, None]
        out = layer(states, attention_mask=mask, position_embeddings=rotary(states, positions), past_key_values=cache, use_cache=True)
        return out[0] if isinstance(out, tuple) else out

    def fresh(kind_of: str) -> Any:
        config._attn_implementation = "sdpa" if kind_of == "dynamic" else attention.NAME
        return DynamicCache() if kind_of == "dynamic" else PolicyCache([PolicyLayer(policies[kind_of], reserve=tokens + 64)])

    hidden = torch.randn((1, tokens, 4096), device=device, dtype=kind) if phase == "prefill" else torch.randn((1, 1, 4096), device=device, dtype=kind)
    caches: dict[str, Any] = {}
    if phase == "decode":
        keys = torch.randn((1, kv, tokens, 128), device=device, dtype=kind)
        for which in kinds:
            caches[which] = fresh(which)
            if which == "dynamic":
                caches[which].update(keys, keys.clone(), 0)
            else:
                caches[which].layers[0].append(keys, keys.clone())
    times: dict[str, list[float]] = {which: [] for which in kinds}
    with torch.inference_mode():
        for number in range(repeats + 1):  # the first round warms up: for a prefill, on its first chunk
            for which in kinds:
                if phase == "decode":
                    cache = caches[which]
                    config._attn_implementation = "sdpa" if which == "dynamic" else attention.NAME
                    start, states = cache.get_seq_length(), [hidden]
                else:
                    cache, start, states = fresh(which), 0, list(hidden.split(chunk, dim=1))[: None if number else 1]
                _wait(device)
                begin = time.perf_counter()
                for piece in states:
                    forward(cache, piece, start)
                    start += piece.shape[1]
                _wait(device)
                times[which].append(time.perf_counter() - begin)
    seconds = {which: statistics.median(values[1:]) for which, values in times.items()}
    return {
        **{f"{which}_seconds": value for which, value in seconds.items()},
        "ratio": seconds["full"] / seconds["duo"],
        "ratio_dynamic": seconds["dynamic"] / seconds["duo"],
        "tokens": float(tokens),
        "full_heads": count / kv,
    }


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


def pattern_share(name: str) -> float:
    """Share of full heads of a full-size pattern at its published sparsity."""
    rows = rows_for(name)
    return float(np.mean([p.kind == "full" for row in rows for p in row]))
