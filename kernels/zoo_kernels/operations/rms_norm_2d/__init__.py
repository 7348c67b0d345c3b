"""``rms_norm_2d(x, weight, bias, eps=1e-5, residual=None, overwrite=False) -> out``: RMS norm over the channels of every pixel, with a bias.

    out[b,:,h,w] = x[b,:,h,w] / sqrt(mean_c(x^2) + eps) * weight + bias (+ residual[b,:,h,w])

x, residual: [B, C, H, W] in any memory format; weight, bias: [C].  The core runs in float32.  ``overwrite=True`` allows (does not oblige) an implementation
to use the memory of x for the result.  DC-AE's norm (``trms2d`` in its configuration files)."""

from __future__ import annotations

from functools import partial
from typing import Any

from zoo_kernels.definition import loader, nbytes, on_cpu, randn
from zoo_kernels.operations.rms_norm import TOLERANCE, fits
from zoo_kernels.registry import KernelRegistry
from zoo_kernels.spec import KernelImpl, OpSpec

SIZES = {"empty": (0, 24, 5, 3), "tiny": (2, 24, 5, 3), "small": (2, 128, 32, 32), "large": (2, 256, 256, 256)}


def example(device: Any, dtype: Any, seed: int = 0, size: str = "tiny") -> tuple[list[Any], dict[str, Any]]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    make = partial(randn, generator=generator, device=device, dtype=dtype)
    shape = SIZES[size]
    return [make(shape), make(shape[1:2]), make(shape[1:2])], {"residual": make(shape)}


def bytes_moved(args: Any, kwargs: Any) -> int:
    """x and residual read, out written."""
    return nbytes(args[0], *args, kwargs.get("residual"))


def flops(args: Any, kwargs: Any) -> int:
    """Square and sum, scale, weight, bias, residual."""
    return 6 * int(args[0].numel())


def rival(x: Any, weight: Any, bias: Any, eps: float = 1e-5, residual: Any = None, overwrite: bool = False) -> Any:
    """What torch offers: ``F.rms_norm`` on the channels-last view."""
    import torch.nn.functional as F

    out = (F.rms_norm(x.permute(0, 2, 3, 1), x.shape[1:2], weight, eps) + bias).permute(0, 3, 1, 2)
    return out if residual is None else out + residual


def register(registry: KernelRegistry) -> None:
    import torch

    from zoo_kernels.operations.rms_norm_2d.reference import rms_norm_2d

    registry.add_op(
        OpSpec(
            "rms_norm_2d",
            "rms_norm_2d(x[B,C,H,W], weight[C], bias[C], eps=1e-5, residual[B,C,H,W]=None, overwrite=False) -> [B,C,H,W]",
            rms_norm_2d,
            example,
            TOLERANCE,
            bytes_moved,
            flops,
            rival,
            "F.rms_norm on the permuted view",
            differentiable=(0, 1, 2),
            variants={
                "no-residual": lambda args, kwargs: (args, {}),
                "channels-last": lambda args, kwargs: ([args[0].to(memory_format=torch.channels_last), *args[1:]], kwargs),
            },
        )
    )
    registry.add(KernelImpl("rms_norm_2d", "cpu", loader(f"{__name__}.cpu", "rms_norm_2d"), on_cpu, priority=10))
    registry.add(KernelImpl("rms_norm_2d", "triton", loader(f"{__name__}.triton", "rms_norm_2d"), fits, priority=20, compile_safe=False, probe=True))
