"""What this machine can do: copy bandwidth and matrix-product rate, measured before any kernel is judged.

An operation that moves B bytes and does F operations cannot be faster than max(B / bandwidth, F / rate); its share of that is what
``zoo kernels bench`` prints.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 31}
"""Bytes of the tensor that is copied: far beyond any cache."""
SIDES = {"cpu": 1536, "cuda": 8192}
"""Side of the square matrices whose product is timed."""
FLUSH_BYTES = 1 << 28


@dataclass(frozen=True)
class Machine:
    """Ceilings of one device.

    Attributes:
        device: ``cpu`` or ``cuda``.
        name: Processor or GPU.
        threads: CPU threads torch uses.
        bandwidth: Bytes read plus bytes written per second of a large copy.
        rates: dtype name -> floating-point operations per second of a square matrix product (a product counts 2).
    """

    device: str
    name: str
    threads: int
    bandwidth: float
    rates: dict[str, float]

    def floor(self, moved: int, operations: int, dtype: str) -> float:
        """Seconds below which no implementation can come: memory and arithmetic, each at its measured ceiling."""
        return max(moved / self.bandwidth, operations / self.rates.get(dtype, max(self.rates.values())))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(device: str = "cpu", dtypes: tuple[str, ...] = ("float32",), *, seconds: float = 1.0) -> Machine:
    """Measure the ceilings (takes about ``seconds`` for each).

    >>> measure(seconds=0.05).bandwidth > 0
    True
    """
    kind = torch.device(device).type
    bandwidth = _bandwidth(device, COPY_BYTES.get(kind, 1 << 28), seconds)
    side, rates = SIDES.get(kind, 2048), {}
    for dtype in dtypes:
        a, b = (torch.randn(side, side).to(device=device, dtype=getattr(torch, dtype)) for _ in range(2))
        rates[dtype] = 2 * side**3 / best(lambda a=a, b=b: a @ b, device, seconds=seconds)  # type: ignore[misc]
    return Machine(kind, processor(device), torch.get_num_threads(), bandwidth, rates)


def _bandwidth(device: str, size: int, seconds: float) -> float:
    """Bytes read and written per second when ``size`` bytes are copied."""
    source, target = torch.ones(size // 4, device=device), torch.empty(size // 4, device=device)
    return 2 * size / best(lambda: target.copy_(source), device, seconds=seconds)


def best(call: Callable[[], Any], device: str = "cpu", *, seconds: float = 1.0, least: int = 3) -> float:
    """Seconds of the fastest of repeated calls: what the hardware can do."""
    return min(times(call, device, seconds=seconds, least=least))


def median(call: Callable[[], Any], device: str = "cpu", *, seconds: float = 1.0, least: int = 3) -> float:
    """Median seconds of repeated calls: what a user gets."""
    return statistics.median(times(call, device, seconds=seconds, least=least))


def times(call: Callable[[], Any], device: str = "cpu", *, seconds: float = 1.0, least: int = 3, warm: int = 2) -> list[float]:
    """Seconds of single calls until ``seconds`` have passed, at least ``least``; on a GPU by events, with the second-level cache overwritten between calls."""
    for _ in range(warm):
        call()
    found: list[float] = []
    begin = time.perf_counter()
    if torch.device(device).type != "cuda":
        while len(found) < least or (time.perf_counter() - begin < seconds and len(found) < 1000):
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
        return found
    flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device)
    while len(found) < least or (time.perf_counter() - begin < seconds and len(found) < 1000):
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        flush.zero_()
        first.record()  # type: ignore[no-untyped-call]
        call()
        last.record()  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        found.append(first.elapsed_time(last) / 1000)  # type: ignore[no-untyped-call]
    return found


def processor(device: str = "cpu") -> str:
    """Name of the device as its vendor writes it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
