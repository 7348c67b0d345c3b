"""Measurements of the paper's headline numbers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from zoo_core.claims import ClaimContext

SIDES = (512, 1024, 2048, 4096)


def _median(function: Callable[[], Any], device: torch.device, repeats: int) -> float:
    function()
    times = []
    for _ in range(repeats):
        if device.type == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def linear_attention(context: ClaimContext) -> dict[str, Any]:
    """Time and memory of one self-attention core, 36 heads of 32, at the token counts of 512 to 4096 px; ``value`` is softmax over linear time at 4096 px."""
    import torch.nn.functional as F
    import zoo_kernels

    device = context.device
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    attend = zoo_kernels.select("linear_attention", device=device, dtype=dtype, head_dim=32)
    heads = 36 if device.type == "cuda" else 4
    rows = []
    for side in SIDES:
        tokens = (side // 32) ** 2
        generator = torch.Generator().manual_seed(context.seed)
        q, k, v = (torch.randn((1, tokens, heads, 32), generator=generator).to(device, dtype) for _ in range(3))
        with torch.inference_mode():
            linear = _median(lambda q=q, k=k, v=v: attend(q, k, v), device, 3)
            softmax = _median(lambda q=q, k=k, v=v: F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v))), device, 3)
        rows.append(
            {
                "pixels": side,
                "tokens": tokens,
                "linear_ms": linear * 1e3,
                "softmax_ms": softmax * 1e3,
                "ratio": softmax / linear,
                "linear_state_bytes": heads * 32 * 33 * 4,
                "softmax_scores_bytes_if_stored": heads * tokens * tokens * q.element_size(),
            }
        )
        context.log(f"{side} px: linear {linear * 1e3:.2f} ms, softmax {softmax * 1e3:.2f} ms")
    growth = rows[-1]["linear_ms"] / rows[1]["linear_ms"]
    quadratic = rows[-1]["softmax_ms"] / rows[1]["softmax_ms"]
    note = f"from 1024 to 4096 px (16x tokens) linear attention takes {growth:.1f}x, softmax {quadratic:.1f}x the time; {heads} heads, torch SDPA as the rival"
    return {"value": rows[-1]["ratio"], "note": note, "rows": rows, "setting": {"heads": heads, "dtype": str(dtype)}}


def token_saving(context: ClaimContext) -> dict[str, Any]:
    """Tokens at 1024 px: an 8x autoencoder with patch size 2 against the 32x one with patch size 1 (counted)."""
    usual, ours = (1024 // (8 * 2)) ** 2, (1024 // 32) ** 2
    return {"value": usual / ours, "note": f"{usual} tokens against {ours}", "rows": []}


def _pipeline_seconds(context: ClaimContext, name: str, batch: int, steps: int = 20) -> float:
    """Seconds per picture, denoising and decoding, random weights, native precision.

    Guidance needs a second branch, so the batch is doubled instead of encoding a negative prompt: the work is that of guided sampling.
    """
    from zoo_core.loading import load

    model: Any = load(name, weights="random", device=context.device, dtype="float16" if context.device.type == "cuda" else "float32")
    width = model.transformer.config.caption_channels
    rows = 2 * batch
    text = (torch.randn(rows, 300, width), torch.ones(rows, 300, dtype=torch.long))

    def run() -> None:
        result = model.generate(["x"] * rows, text=text, steps=steps, seed=context.seed, output="latent", guidance=1.0)
        model.decode(result.latents[:batch])

    return _median(run, context.device, 3) / batch


def throughput_0_6b(context: ClaimContext) -> dict[str, Any]:
    return {"value": 1 / _pipeline_seconds(context, "sana-0.6b-1024", 10), "note": "batch 10; two branches, text encoding not timed"}


def throughput_1_6b(context: ClaimContext) -> dict[str, Any]:
    return {"value": 1 / _pipeline_seconds(context, "sana-1.6b-1024", 10), "note": "batch 10; two branches, text encoding not timed"}


def latency_0_6b(context: ClaimContext) -> dict[str, Any]:
    return {"value": _pipeline_seconds(context, "sana-0.6b-1024", 1), "note": "batch 1; two branches, text encoding not timed"}
