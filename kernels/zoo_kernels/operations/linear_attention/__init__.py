"""``linear_attention(q, k, v, eps=1e-15) -> out``: ReLU linear attention over tokens.

    out_n = (relu(q_n) S) / (relu(q_n) . z + eps),   S = sum_m relu(k_m) v_m^T,   z = sum_m relu(k_m)

q, k, v: [B, N, H, d], any strides; the core runs in float32 whatever the dtype; a row whose features are all zero gives 0.  Used by DC-AE (LiteMLA) and Sana.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from zoo_kernels.definition import loader, on_cpu, on_triton
from zoo_kernels.registry import KernelRegistry
from zoo_kernels.spec import KernelImpl, OpSpec

SIZES = {"empty": (2, 0, 3, 16), "tiny": (2, 37, 3, 16), "small": (2, 256, 4, 32), "large": (2, 4096, 36, 32)}


def example(device: Any, dtype: Any, seed: int = 0, size: str = "tiny") -> tuple[list[Any], dict[str, Any]]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SIZES[size], generator=generator).to(device=device, dtype=dtype) for _ in range(3)], {}


def bytes_moved(args: Any, kwargs: Any) -> int:
    """q, k, v read, out written."""
    q = args[0]
    return 4 * q.numel() * q.element_size()


def flops(args: Any, kwargs: Any) -> int:
    """Two products with the d x (d + 1) state."""
    b, n, h, d = args[0].shape
    return 4 * b * h * n * d * (d + 1)


def rival(q: Any, k: Any, v: Any, eps: float = 1e-15) -> Any:
    """The attention that linear attention replaces: softmax, quadratic in the tokens."""
    import torch.nn.functional as F

    return F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v))).transpose(1, 2)


def register(registry: KernelRegistry) -> None:
    from zoo_kernels.operations.linear_attention.reference import linear_attention

    registry.add_op(
        OpSpec(
            "linear_attention",
            "linear_attention(q[B,N,H,d], k[B,N,H,d], v[B,N,H,d], eps=1e-15) -> [B,N,H,d]",
            linear_attention,
            example,
            {"float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3, "float64": 1e-5},
            bytes_moved,
            flops,
            rival,
            "softmax attention (F.sdpa)",
            rival_agrees=False,
            differentiable=(0, 1, 2),
        )
    )
    registry.add(KernelImpl("linear_attention", "cpu", loader(f"{__name__}.cpu", "linear_attention"), on_cpu, priority=10))
    fits = partial(on_triton, power_of_two="head_dim", high=128)
    registry.add(KernelImpl("linear_attention", "triton", loader(f"{__name__}.triton", "linear_attention"), fits, priority=20, compile_safe=False, probe=True))
