"""``rotary(x, cos, sin, style="half", position_ids=None, rotary_dim=None) -> out``: rotary position embedding of queries or keys.

    (a, b) -> (a cos - b sin, b cos + a sin)   for every pair (a, b) of channels

x: [B, H, N, d], any strides.  Pairs: ``style="half"`` (i, i + r/2), as in Llama; ``style="interleaved"`` (2i, 2i + 1), as in GPT-J; r = ``rotary_dim``
(default d); channels from r on pass unchanged.  cos, sin: one angle per pair, [B or 1, N, r/2], or the same doubled to r channels (copies as the style
pairs them: only one copy is read).  With ``position_ids`` [B or 1, N] (int64) they are tables [T, r/2 or r].  Computed in float32; gradients for x only."""

from __future__ import annotations

from typing import Any

from zoo_kernels.definition import loader, nbytes, on_cpu, on_triton, randn
from zoo_kernels.registry import KernelRegistry
from zoo_kernels.spec import KernelImpl, OpSpec

SIZES = {"empty": (2, 3, 0, 16), "tiny": (2, 3, 19, 16), "small": (2, 8, 256, 64), "large": (1, 32, 8192, 128)}
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3, "float64": 1e-5}


def example(device: Any, dtype: Any, seed: int = 0, size: str = "tiny") -> tuple[list[Any], dict[str, Any]]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    shape = SIZES[size]
    angles = torch.arange(shape[2])[None, :, None] * 10000.0 ** (-torch.arange(shape[3] // 2) / (shape[3] // 2))
    angles = torch.cat((angles, angles), -1)
    return [randn(shape, generator, device, dtype), angles.cos().to(device), angles.sin().to(device)], {}


def bytes_moved(args: Any, kwargs: Any) -> int:
    """x, cos and sin read, out written."""
    return nbytes(args[0], *args[:3])


def flops(args: Any, kwargs: Any) -> int:
    """Six per pair."""
    return 3 * int(args[0].numel())


def rival(x: Any, cos: Any, sin: Any) -> Any:
    """The usual formula in models (half style, doubled cos and sin)."""
    import torch

    half = x.shape[-1] // 2
    return x * cos[:, None] + torch.cat((-x[..., half:], x[..., :half]), -1) * sin[:, None]


def with_positions(args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The angles as tables, looked up by shuffled position ids (one row for all sequences)."""
    import torch

    x, cos, sin = args
    return [x, cos[0], sin[0]], {"position_ids": torch.arange(x.shape[2], device=x.device).flip(0)[None]}


def partial_half(args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Only the first half of the channels turns."""
    x, cos, sin = args
    half = x.shape[-1] // 2
    return [x, cos[..., : half // 2], sin[..., : half // 2]], {"rotary_dim": half}


VARIANTS = {
    "interleaved": lambda args, kwargs: ([args[0], *(t[..., : t.shape[-1] // 2] for t in args[1:])], {"style": "interleaved"}),
    "positions": with_positions,
    "partial": partial_half,
}
"""Other calls that parity covers."""


def register(registry: KernelRegistry) -> None:
    from zoo_kernels.operations.rotary.reference import rotary

    registry.add_op(
        OpSpec(
            "rotary",
            'rotary(x[B,H,N,d], cos[B|1,N,r/2|r] or [T,...], sin, style="half"|"interleaved", position_ids[B|1,N]=None, rotary_dim=None) -> [B,H,N,d]',
            rotary,
            example,
            TOLERANCE,
            bytes_moved,
            flops,
            rival,
            "x*cos + rotate_half(x)*sin",
            differentiable=(0,),
            variants=VARIANTS,
        )
    )
    registry.add(KernelImpl("rotary", "cpu", loader(f"{__name__}.cpu", "rotary"), on_cpu, priority=10))
    registry.add(KernelImpl("rotary", "triton", loader(f"{__name__}.triton", "rotary"), on_triton, priority=20, compile_safe=False, probe=True))
