"""``int4_kv_decode(q, k_codes, k_scale, k_zero, v_codes, v_scale, v_zero, first=None, scale=None) -> out``: one new token over 4-bit keys and values.

q: [B, H, G, d], G queries per kv-head.  codes: uint8 [B, H, L, d/2], the even channel in the high nibble, the odd one in the low; scale, zero: [B, H, L,
g], one per token, head and group of d/g channels; value = code * scale + zero (DuoAttention's INT4 cache).  first: int64 [B], first real column per row
(left padding).  Result [B, H, G, d]. Values are restored in float32 (a cache that restores them to float16 first differs by that rounding); no dequantised
copy in the Triton implementation; no gradients."""

from __future__ import annotations

from typing import Any

from zoo_kernels.definition import loader, nbytes, on_cpu, on_triton, randn
from zoo_kernels.registry import KernelRegistry
from zoo_kernels.spec import KernelImpl, OpSpec

SIZES = {"empty": (0, 2, 2, 32, 20, 1), "tiny": (2, 2, 3, 32, 150, 2), "small": (1, 8, 4, 64, 2048, 1), "large": (1, 8, 4, 128, 131072, 1)}
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3}


def example(device: Any, dtype: Any, seed: int = 0, size: str = "tiny") -> tuple[list[Any], dict[str, Any]]:
    import torch

    b, h, g, d, length, groups = SIZES[size]
    generator = torch.Generator().manual_seed(seed)
    args = [randn((b, h, g, d), generator, device, dtype)]
    for _ in range(2):
        args.append(torch.randint(0, 256, (b, h, length, d // 2), generator=generator, dtype=torch.uint8).to(device))
        args.append((torch.rand((b, h, length, groups), generator=generator) / 5 + 0.1).to(device=device, dtype=torch.float16))
        args.append((torch.rand((b, h, length, groups), generator=generator) - 2).to(device=device, dtype=torch.float16))
    return args, {}


def bytes_moved(args: Any, kwargs: Any) -> int:
    """q and the packed cache read, out written."""
    return nbytes(args[0], *args)


def flops(args: Any, kwargs: Any) -> int:
    """Two products over every key, and the restoring of the values."""
    q, codes = args[0], args[1]
    return int(q.shape[0] * q.shape[1] * codes.shape[2] * q.shape[3] * (4 * q.shape[2] + 4))


def register(registry: KernelRegistry) -> None:
    from zoo_kernels.operations.int4_kv_decode.reference import int4_kv_decode

    name = "int4_kv_decode"
    signature = "int4_kv_decode(q[B,H,G,d], k_codes u8[B,H,L,d/2], k_scale[B,H,L,g], k_zero, v_codes, v_scale, v_zero, first[B]=None, scale=None) -> [B,H,G,d]"
    registry.add_op(OpSpec(name, signature, int4_kv_decode, example, TOLERANCE, bytes_moved, flops))
    registry.add(KernelImpl(name, "cpu", loader(f"{__name__}.cpu", name), on_cpu, priority=10, backward=False))

    def fits(query: Any) -> list[str]:
        return on_triton(query, power_of_two="head_dim", low=32)

    registry.add(KernelImpl(name, "triton", loader(f"{__name__}.triton", name), fits, priority=20, backward=False, compile_safe=False, probe=True))
