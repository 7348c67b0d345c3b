"""``rms_norm(x, weight=None, bias=None, eps=1e-6) -> out``: root-mean-square norm over the last dimension.

    out = x / sqrt(mean(x^2) + eps) * weight + bias

x: [..., C], any strides; weight, bias: [C] or None, any floating dtype.  The core runs in float32; the result has the dtype of x.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from zoo_kernels.definition import at_most, loader, nbytes, on_cpu, on_triton, randn
from zoo_kernels.registry import KernelRegistry
from zoo_kernels.spec import KernelImpl, OpSpec, Query

SIZES = {"empty": (2, 0, 24), "tiny": (3, 17, 24), "small": (4, 256, 512), "large": (4, 4096, 2048)}
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3, "float64": 1e-5}
LIMIT = 16384
"""Most channels that the Triton kernel holds at once."""


def example(device: Any, dtype: Any, seed: int = 0, size: str = "tiny") -> tuple[list[Any], dict[str, Any]]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    make = partial(randn, generator=generator, device=device, dtype=dtype)
    return [make(SIZES[size]), make(SIZES[size][-1:]), make(SIZES[size][-1:])], {}


def bytes_moved(args: Any, kwargs: Any) -> int:
    """x read, out written."""
    return nbytes(args[0], *args)


def flops(args: Any, kwargs: Any) -> int:
    """Square and sum, scale, weight and bias."""
    return 5 * int(args[0].numel())


def rival(x: Any, weight: Any = None, bias: Any = None, eps: float = 1e-6) -> Any:
    """What torch offers: ``F.rms_norm`` and an addition."""
    import torch.nn.functional as F

    out = F.rms_norm(x, x.shape[-1:], weight, eps)
    return out if bias is None else out + bias


def fits(query: Query) -> list[str]:
    """Reasons against the Triton kernel (hint ``channels``)."""
    return [*on_triton(query), *at_most(query, "channels", LIMIT)]


def register(registry: KernelRegistry) -> None:
    from zoo_kernels.operations.rms_norm.reference import rms_norm

    registry.add_op(
        OpSpec(
            "rms_norm",
            "rms_norm(x[...,C], weight[C]=None, bias[C]=None, eps=1e-6) -> [...,C]",
            rms_norm,
            example,
            TOLERANCE,
            bytes_moved,
            flops,
            rival,
            "F.rms_norm + bias",
            differentiable=(0, 1, 2),
            variants={
                "no-bias": lambda args, kwargs: (args[:2], kwargs),
                "plain": lambda args, kwargs: (args[:1], kwargs),
                "only-bias": lambda args, kwargs: ([args[0], None, args[2]], kwargs),
                "eps": lambda args, kwargs: (args, {"eps": 0.1}),
                "one-row": lambda args, kwargs: ([args[0][0, 0], *args[1:]], kwargs),
            },
        )
    )
    registry.add(KernelImpl("rms_norm", "cpu", loader(f"{__name__}.cpu", "rms_norm"), on_cpu, priority=10))
    registry.add(KernelImpl("rms_norm", "triton", loader(f"{__name__}.triton", "rms_norm"), fits, priority=20, compile_safe=False, probe=True))
