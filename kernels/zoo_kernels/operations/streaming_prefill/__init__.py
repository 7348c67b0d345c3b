"""``streaming_prefill(q, k, v, sink, recent, old_k=None, old_v=None, old_columns=None, start=0, scale=None) -> out``: sinks and a recent window, linear in
the tokens.

The N new tokens have the columns start ... start + N - 1.  A query at column i sees the key at column j iff j <= i and (j < sink or j >= i - recent):
sinks, the ``recent`` tokens before it, and itself (the rule of decoding with such a cache, so that a prompt gives the same result in any chunks).  q: [B,
H, N, d]; k, v: [B, Hk, N, d], H a multiple of Hk.  What is left of earlier chunks: old_k, old_v [B, Hk, M, d] with their columns, int64 [M], -1 for an
empty slot, in any order.  Softmax in float32; no gradients."""

from __future__ import annotations

from typing import Any

from zoo_kernels.definition import loader, nbytes, on_cpu, on_triton, randn
from zoo_kernels.registry import KernelRegistry
from zoo_kernels.spec import KernelImpl, OpSpec

SIZES = {"empty": (2, 4, 2, 0, 16, 4, 24), "tiny": (2, 4, 2, 170, 16, 5, 40), "small": (1, 8, 2, 2048, 64, 64, 256), "large": (1, 32, 8, 32768, 128, 128, 256)}
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3}


def example(device: Any, dtype: Any, seed: int = 0, size: str = "tiny") -> tuple[list[Any], dict[str, Any]]:
    import torch

    b, h, hk, n, d, sink, recent = SIZES[size]
    generator = torch.Generator().manual_seed(seed)
    return [*(randn((b, heads, n, d), generator, device, dtype) for heads in (h, hk, hk)), sink, recent], {}


def bytes_moved(args: Any, kwargs: Any) -> int:
    """q, k, v read, out written."""
    return nbytes(args[0], *args[:3])


def flops(args: Any, kwargs: Any) -> int:
    """Two products over the visible keys."""
    q, sink, recent = args[0], args[3], args[4]
    return 4 * int(q.shape[0] * q.shape[1] * q.shape[3]) * sum(min(i + 1, sink + recent + 1) for i in range(q.shape[2]))


def rival(q: Any, k: Any, v: Any, sink: int, recent: int) -> Any:
    """Full causal attention, which a model without the policy does."""
    import torch.nn.functional as F

    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def register(registry: KernelRegistry) -> None:
    from zoo_kernels.operations.streaming_prefill.reference import streaming_prefill

    name = "streaming_prefill"
    signature = (
        "streaming_prefill(q[B,H,N,d], k[B,Hk,N,d], v, sink, recent, old_k[B,Hk,M,d]=None, old_v=None, old_columns[M]=None, start=0, scale=None) -> [B,H,N,d]"
    )
    library = "full causal attention (F.sdpa)"
    registry.add_op(OpSpec(name, signature, streaming_prefill, example, TOLERANCE, bytes_moved, flops, rival, library, rival_agrees=False))
    registry.add(KernelImpl(name, "cpu", loader(f"{__name__}.cpu", name), on_cpu, priority=10, backward=False, compile_safe=False))

    def fits(query: Any) -> list[str]:
        return on_triton(query, power_of_two="head_dim", bfloat16_products=True)

    registry.add(KernelImpl(name, "triton", loader(f"{__name__}.triton", name), fits, priority=20, backward=False, compile_safe=False, probe=True))
