"""``head_policy_decode(q, full_k, full_v, ring_k, ring_v, slots, ring_valid=None, first=None, scale=None) -> out``: one new token over a mix of kv-heads.

Some kv-heads keep all L tokens, the others sinks and a ring of S slots (DuoAttention, section 2.3; StreamingLLM).  q: [B, H, G, d], G queries per kv-head;
full_k, full_v: [B, Hf, L, d]; ring_k, ring_v: [B, Hr, S, d], in any order of slots; ``slots``: one integer per kv-head, s >= 0 for full head s and -1 - s
for ring head s. The new token's key and value are in the caches already.  ring_valid: bool [B or 1, S], False where a slot holds nothing; first: int64 [B],
first real column per row (left padding).  A row that may see nothing gives 0.  Result [B, H, G, d]; softmax in float32; no gradients."""

from __future__ import annotations

from typing import Any

from zoo_kernels.definition import loader, nbytes, on_cpu, on_triton, randn
from zoo_kernels.registry import KernelRegistry
from zoo_kernels.spec import KernelImpl, OpSpec

SIZES = {"empty": (0, 4, 2, 16, 33, 12), "tiny": (2, 4, 2, 16, 150, 12), "small": (1, 8, 4, 64, 2048, 97), "large": (1, 8, 4, 128, 131072, 385)}
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3}


def example(device: Any, dtype: Any, seed: int = 0, size: str = "tiny") -> tuple[list[Any], dict[str, Any]]:
    import torch

    b, h, g, d, length, ring = SIZES[size]
    generator = torch.Generator().manual_seed(seed)
    half = h // 2
    shapes = [(b, h, g, d), (b, half, length, d), (b, half, length, d), (b, h - half, ring, d), (b, h - half, ring, d)]
    slots = [i // 2 if i % 2 == 0 else -1 - i // 2 for i in range(h)]
    return [*(randn(shape, generator, device, dtype) for shape in shapes), slots], {}


def padded(args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Left padding in the rows, empty slots in the ring."""
    import torch

    batch, slots = args[0].shape[0], args[3].shape[2]
    first = torch.arange(3, 3 + batch, device=args[0].device)
    return args, {**kwargs, "ring_valid": (torch.arange(slots, device=args[0].device)[None] + first[:, None]) % 4 != 0, "first": first}


def bytes_moved(args: Any, kwargs: Any) -> int:
    """q and both caches read, out written."""
    return nbytes(args[0], *args[:5])


def flops(args: Any, kwargs: Any) -> int:
    """Two products over every key of the head."""
    q, full, ring = args[0], args[1], args[3]
    return 4 * int(q.shape[0] * q.shape[2] * q.shape[3] * (full.shape[1] * full.shape[2] + ring.shape[1] * ring.shape[2]))


def register(registry: KernelRegistry) -> None:
    from zoo_kernels.operations.head_policy_decode.reference import head_policy_decode

    name = "head_policy_decode"
    signature = (
        "head_policy_decode(q[B,H,G,d], full_k[B,Hf,L,d], full_v, ring_k[B,Hr,S,d], ring_v, slots: H ints, "
        "ring_valid[B|1,S]=None, first[B]=None, scale=None) -> [B,H,G,d]"
    )
    registry.add_op(OpSpec(name, signature, head_policy_decode, example, TOLERANCE, bytes_moved, flops, variants={"padded": padded}))
    registry.add(KernelImpl(name, "cpu", loader(f"{__name__}.cpu", name), on_cpu, priority=10, backward=False))

    def fits(query: Any) -> list[str]:
        return on_triton(query, power_of_two="head_dim", bfloat16_products=True)

    registry.add(KernelImpl(name, "triton", loader(f"{__name__}.triton", name), fits, priority=20, backward=False, compile_safe=False, probe=True))
