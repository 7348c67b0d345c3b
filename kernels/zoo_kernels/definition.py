"""Small helpers that the ``operations/<name>/__init__.py`` files (and third parties) use to describe themselves."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from zoo_kernels.spec import Query


def loader(module: str, attribute: str) -> Callable[[], Callable[..., Any]]:
    """``load`` of a :class:`~zoo_kernels.spec.KernelImpl`: imports ``module`` when called."""
    return lambda: getattr(importlib.import_module(module), attribute)


def on_cpu(query: Query) -> list[str]:
    """Reasons against an implementation made for CPUs."""
    return [] if query.device.type == "cpu" else [f"runs on a CPU, not on {query.device.type}"]


def on_triton(query: Query, *, power_of_two: str = "", low: int = 16, high: int = 256, bfloat16_products: bool = False) -> list[str]:
    """Reasons against a Triton kernel.

    Args:
        power_of_two: Hint that must be a power of two in [low, high] when it is given.
        bfloat16_products: The kernel hands bfloat16 blocks to ``tl.dot``, which Triton's interpreter multiplies as raw bits.
    """
    import torch

    from zoo_kernels.triton_support import interpreting, reasons

    found = reasons(query)
    if bfloat16_products and query.dtype == torch.bfloat16 and interpreting():
        found.append("Triton's interpreter multiplies bfloat16 blocks wrongly (a GPU does not)")
    value = query.hints.get(power_of_two) if power_of_two else None
    if value is not None and (value & (value - 1) or not low <= value <= high):
        found.append(f"{power_of_two} {value} is not a power of two from {low} to {high}")
    return found


def at_most(query: Query, hint: str, limit: int) -> list[str]:
    """Reason when hint ``hint`` is larger than ``limit``."""
    value = query.hints.get(hint)
    return [f"{hint} {value} is above {limit}"] if value is not None and value > limit else []


def nbytes(*tensors: Any) -> int:
    """Bytes of the given tensors (None counts 0)."""
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


def randn(shape: tuple[int, ...], generator: Any, device: Any, dtype: Any) -> Any:
    """Normal numbers drawn on the CPU (the same on every device), then moved and cast."""
    import torch

    return torch.randn(shape, generator=generator).to(device=device, dtype=dtype)
