"""Measurements of the paper's headline numbers (see :mod:`zoo_duo_attention.measure`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo_duo_attention import measure

if TYPE_CHECKING:
    from zoo_core.claims import ClaimContext

MHA, GQA = "llama-2-7b-32k", "llama-3-8b-1048k"


def _memory(name: str, tokens: int) -> dict[str, Any]:
    result = measure.memory_ratio(name, tokens)
    full, duo = ((result[key] + result["weight_bytes"]) / 2**30 for key in ("full_bytes", "duo_bytes"))
    note = f"exact cache bytes at {tokens:,} tokens plus 16-bit weights: {full:.1f} GiB full, {duo:.1f} GiB with the published pattern"
    note += f"; cache alone {result['kv_ratio']:.2f}x; activations not counted"
    return {"value": result["ratio"], "note": note, "setting": {"tokens": tokens, "sink": 64, "recent": 256, **result}}


def memory_mha(context: ClaimContext) -> dict[str, Any]:
    return _memory(MHA, 100_000)


def memory_gqa(context: ClaimContext) -> dict[str, Any]:
    return _memory(GQA, 320_000)


def capacity_kv4(context: ClaimContext) -> dict[str, Any]:
    """Tokens that fit beside 8-bit weights in 80 GB (10^9 bytes), 4-bit cache, half of the heads streaming."""
    tokens = measure.capacity(GQA, 80e9, weight_bytes_per_parameter=1.0, storage="int4")
    note = f"{tokens:,} tokens from exact cache bytes; room for activations is not taken off, so the paper's figure is the safer one"
    return {"value": tokens / 1e6, "note": note}


def _speed(context: ClaimContext, name: str, phase: str) -> dict[str, Any]:
    cuda = context.device.type == "cuda"
    tokens = {("decode", True): 100_000, ("prefill", True): 100_000, ("decode", False): 16_384, ("prefill", False): 32_768}[phase, cuda]
    if not cuda and context.seconds < 60:
        tokens //= 4 if phase == "decode" else 16
    chunk = 32_000 if cuda else min(2048, tokens // 4)
    repeats = 20 if cuda else 3 if phase == "decode" else 1
    row = measure.layer_speed(name, tokens, phase=phase, chunk=chunk, repeats=repeats, device=str(context.device), seed=context.seed)
    note = f"one decoder layer of full width, {tokens:,} tokens: {row['full_seconds'] * 1e3:.1f} ms full, {row['duo_seconds'] * 1e3:.1f} ms duo"
    note += f"; {row['ratio_dynamic']:.2f}x against transformers' DynamicCache"
    return {"value": row["ratio"], "note": note, "rows": [row], "setting": {"tokens": tokens, "chunk": chunk, "phase": phase}}


def decode_mha(context: ClaimContext) -> dict[str, Any]:
    return _speed(context, MHA, "decode")


def decode_gqa(context: ClaimContext) -> dict[str, Any]:
    return _speed(context, GQA, "decode")


def prefill_mha(context: ClaimContext) -> dict[str, Any]:
    return _speed(context, MHA, "prefill")


def prefill_gqa(context: ClaimContext) -> dict[str, Any]:
    return _speed(context, GQA, "prefill")
