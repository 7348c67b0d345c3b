"""Time, bandwidth and rate of every implementation, against what this machine can do and against the call a user would make otherwise."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from zoo_kernels.registry import registry
from zoo_kernels.roofline import Machine, median
from zoo_kernels.selection import reasons_against
from zoo_kernels.spec import OpSpec, Query
from zoo_kernels.triton_support import interpreting

SIZES = ("small", "large")
RIVAL = "library"


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        implementation: Name, or ``library`` for the call a user would make otherwise (named in ``note``).
        seconds: Median of one call.
        gigabytes: The operation's bytes (inputs once, result once) per second / 1e9; an implementation that moves more shows less.
        gigaflops: The operation's arithmetic per second / 1e9.
        share: Of the fastest time that bandwidth and rate of this machine allow (1 = at the ceiling; above 1: the data stays in caches).
        speedup: Over ``library``, or over ``reference`` where the operation names no library call.
        peak: Bytes allocated above the inputs at the worst moment (GPU; None elsewhere).
    """

    op: str
    implementation: str
    dtype: str
    size: str
    direction: str
    shapes: str
    seconds: float
    gigabytes: float
    gigaflops: float
    share: float
    speedup: float | None = None
    peak: int | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def bench(
    machine: Machine,
    ops: Sequence[str] = (),
    *,
    dtypes: Sequence[str] = ("float32",),
    sizes: Sequence[str] = SIZES,
    backward: bool = False,
    seconds: float = 0.5,
) -> Iterator[Row]:
    """Rows of the named operations (default: all), the library's first.

    Args:
        backward: Also forward plus gradients (bytes and arithmetic are then counted three times).
    """
    for op in ops or list(registry):
        spec = registry.op(op)
        for dtype in dtypes:
            if dtype not in spec.tolerance:
                continue
            for size in sizes:
                yield from _group(machine, spec, dtype, size, False, seconds)
                if backward and spec.differentiable:
                    yield from _group(machine, spec, dtype, size, True, seconds)


def environment(machine: Machine) -> dict[str, Any]:
    """What the numbers belong to."""
    from zoo_kernels.quarantine import _triton

    return {
        "machine": machine.to_dict(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _triton(),
        "interpreted": interpreting(),
        "load_average": [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }


def _group(machine: Machine, spec: OpSpec, dtype: str, size: str, backward: bool, seconds: float) -> Iterator[Row]:
    """The library's call and every implementation on the same arguments."""
    args, kwargs = spec.example(torch.device(machine.device), getattr(torch, dtype), 0, size)
    contenders: list[tuple[str, str, Callable[..., Any]]] = [(RIVAL, spec.rival_name, spec.rival)] if spec.rival is not None else []
    query = Query(torch.device(machine.device), getattr(torch, dtype), backward)
    for item in reversed(registry.implementations(spec.name)):  # the reference comes last in the order of preference
        reasons = reasons_against(item, query)
        if not reasons:
            contenders.append((item.name, "", item.load()))
    base: float | None = None
    factor = 3 if backward else 1
    moved, operations = factor * spec.bytes_moved(args, kwargs), factor * spec.flops(args, kwargs)
    shapes = " ".join("x".join(map(str, a.shape)) for a in args if isinstance(a, torch.Tensor))
    for name, note, function in contenders:
        try:
            call = _call(spec, function, args, kwargs, backward)
            taken = median(call, machine.device, seconds=seconds)
            peak = _peak(call, machine.device)
        except (RuntimeError, TypeError, NotImplementedError) as error:
            if name != RIVAL:
                raise
            del error  # the library cannot do this dtype or these arguments: no row
            continue
        base = taken if base is None else base
        yield Row(
            spec.name,
            name,
            dtype,
            size,
            "forward+backward" if backward else "forward",
            shapes,
            taken,
            moved / taken / 1e9,
            operations / taken / 1e9,
            machine.floor(moved, operations, dtype) / taken,
            base / taken,
            peak,
            note,
        )


def _call(spec: OpSpec, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], backward: bool) -> Callable[[], Any]:
    if not backward:

        def forward() -> Any:
            with torch.no_grad():
                return function(*args, **kwargs)

        return forward
    leaves = [a.detach().requires_grad_() if i in spec.differentiable else a for i, a in enumerate(args)]
    wanted = [leaves[i] for i in spec.differentiable]
    with torch.no_grad():
        seed = torch.ones_like(function(*args, **kwargs))
    return lambda: torch.autograd.grad(function(*leaves, **kwargs), wanted, seed)


def _peak(call: Callable[[], Any], device: str) -> int | None:
    if torch.device(device).type != "cuda":
        return None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
