"""Side-by-side benchmarks: interleaved timing, peak memory, result files.

def run(context: BenchContext) -> list[dict]:
    times = context.time({"ours": lambda: ours(x), "other": lambda: other(x)})
    return [context.row("encode 512", times, other="diffusers")]
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core.errors import EvaluationError
from zoo_core.evaluation.results import write_json

if TYPE_CHECKING:
    import torch

    from zoo_core.specs import BenchmarkSpec

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds per call over the repeats: median and quartiles of the wall clock, median processor time of this process (all threads).

    Processor time also holds on a machine where other programs compete for the processor; for work on a GPU it says nothing.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    n: int
    cpu_ms: float = 0.0

    @property
    def iqr_ms(self) -> float:
        return self.high_ms - self.low_ms


def time_interleaved(
    functions: Mapping[str, Callable[[], Any]], *, repeats: int = 7, warmup: int = 2, seconds: float | None = None, device: torch.device | str = "cpu"
) -> dict[str, Timing]:
    """Time several functions fairly: warm all up, then call them in turns, reversing the order every round, so that drift of the machine hits all alike.

    Args:
        repeats: Rounds.
        warmup: Untimed calls of each function first.
        seconds: Stop after the round in which this much time is spent (at least three rounds).
        device: CUDA work is waited for before the clock is read.
    """
    import torch

    cuda = torch.device(device).type == "cuda"

    def wait() -> None:
        if cuda:
            torch.cuda.synchronize(device)

    for function in functions.values():
        for _ in range(warmup):
            function()
    wait()
    samples: dict[str, list[float]] = {name: [] for name in functions}
    busy: dict[str, list[float]] = {name: [] for name in functions}
    began = time.perf_counter()
    for number in range(repeats):
        for name in list(functions) if number % 2 == 0 else list(functions)[::-1]:
            wait()
            start, spent = time.perf_counter(), time.process_time()
            functions[name]()
            wait()
            samples[name].append((time.perf_counter() - start) * 1000)
            busy[name].append((time.process_time() - spent) * 1000)
        if seconds is not None and number >= 2 and time.perf_counter() - began > seconds:
            break
    return {name: summary(values, busy[name]) for name, values in samples.items()}


def summary(wall: list[float], busy: list[float]) -> Timing:
    """The timing of calls whose wall-clock and processor times (milliseconds) were measured one by one."""
    low, _, high = statistics.quantiles(wall, n=4, method="inclusive") if len(wall) > 1 else wall * 3
    return Timing(statistics.median(wall), low, high, len(wall), statistics.median(busy))


def peak_bytes(function: Callable[[], Any], device: torch.device | str = "cpu") -> int | None:
    """Memory that one call adds at its peak: CUDA allocations, or on Linux resident memory of this process; None where it cannot be measured.

    Memory that the process freed before is given back to the system first where the C library can do that (glibc); elsewhere the resident peak can be
    too small, and :func:`peak_in_child` gives a clean process.
    """
    import torch

    where = torch.device(device)
    if where.type == "cuda":
        torch.cuda.synchronize(where)
        torch.cuda.reset_peak_memory_stats(where)
        before = torch.cuda.memory_allocated(where)
        function()
        torch.cuda.synchronize(where)
        return int(torch.cuda.max_memory_allocated(where) - before)
    _trim()
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        function()
        return max(0, _status("VmHWM") - before)
    except OSError:
        function()
        return None


def _trim() -> None:
    """Free heap memory goes back to the system, so that its reuse counts as growth again."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # not glibc
        return


def _status(key: str) -> int:
    match = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    if match is None:
        raise OSError(f"no {key}")
    return int(match[1]) * 1024


def peak_in_child(target: str, options: Mapping[str, Any] | None = None, *, device: str = "cpu", timeout: float = 600.0) -> int | None:
    """:func:`peak_bytes` in a fresh process.

    Args:
        target: ``"package.module:prepare"``; ``prepare(**options)`` does the set-up and returns the function that is measured.
        options: JSON data.
    """
    code = "import json,sys\nfrom zoo_core.bench import _child\n_child(*json.loads(sys.argv[1]))"
    command = [sys.executable, "-c", code, json.dumps([target, dict(options or {}), device])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    except subprocess.TimeoutExpired as error:
        raise EvaluationError(f"measuring {target} took more than {timeout:.0f} s") from error
    if done.returncode:
        raise EvaluationError(f"measuring {target} failed", tried=done.stderr.strip().splitlines()[-3:])
    value: int | None = json.loads(done.stdout.strip().splitlines()[-1])
    return value


def _child(target: str, options: dict[str, Any], device: str) -> None:
    from zoo_core.specs import resolve

    print(json.dumps(peak_bytes(resolve(target)(**options), device)))


@dataclass(slots=True)
class BenchContext:
    """What a benchmark gets.

    Attributes:
        device: Where to run.
        seconds: Budget for the whole benchmark.
        repeats: Rounds of :meth:`time`.
        seed: For inputs.
        log: ``log(text)``.
    """

    device: torch.device
    seconds: float = 120.0
    repeats: int = 7
    seed: int = 0
    folder: Path = field(default_factory=Path)
    log: Callable[[str], None] = lambda text: None
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds of the budget that are left (at least 0); skip further cells when it is 0."""
        return max(0.0, self.seconds - (time.monotonic() - self.began))

    def time(self, functions: Mapping[str, Callable[[], Any]], *, warmup: int = 2, seconds: float | None = None) -> dict[str, Timing]:
        """:func:`time_interleaved` with this context's device and repeats."""
        return time_interleaved(functions, repeats=self.repeats, warmup=warmup, seconds=seconds, device=self.device)

    def row(self, cell: str, times: Mapping[str, Timing], *, other: str, ours: str = "ours", rival: str = "other", **extra: Any) -> dict[str, Any]:
        """A result row from the timings ``times[ours]`` and ``times[rival]``; ``ratio`` above 1: ours is faster (``cpu_ratio``: in processor time)."""
        a, b = times[ours], times[rival]
        busy = {"ours_cpu_ms": a.cpu_ms, "other_cpu_ms": b.cpu_ms, "cpu_ratio": b.cpu_ms / a.cpu_ms} if a.cpu_ms and self.device.type == "cpu" else {}
        return {
            "cell": cell,
            "ours_ms": a.median_ms,
            "other_ms": b.median_ms,
            "ratio": b.median_ms / a.median_ms,
            "other": other,
            "ours_iqr_ms": a.iqr_ms,
            "other_iqr_ms": b.iqr_ms,
            "repeats": a.n,
            **busy,
            **extra,
        }


def run_benchmark(
    spec: BenchmarkSpec,
    *,
    folder: Path | None = None,
    device: torch.device | None = None,
    seconds: float = 120.0,
    repeats: int = 7,
    seed: int = 0,
    log: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Run one benchmark and write ``<folder>/<name>.json`` (one rename; nothing is left when it is interrupted).

    Raises:
        EvaluationError: The benchmark gave no row, or a row without ``cell``.
    """
    import torch

    from zoo_core.evaluation import provenance
    from zoo_core.specs import resolve

    folder = folder or default_folder()
    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    context = BenchContext(device, seconds, repeats, seed, folder, log or (lambda text: None))
    torch.manual_seed(seed)
    began = time.perf_counter()
    rows = [provenance.plain(row) for row in resolve(spec.run)(context)]
    if not rows or any("cell" not in row for row in rows):
        raise EvaluationError(
            f"benchmark {spec.name!r} gave {len(rows)} rows" + (", one without 'cell'" if rows else ""), fix="return one dict per measured cell"
        )
    record = {
        "schema": SCHEMA,
        "kind": "benchmark",
        "name": spec.name,
        "against": spec.against,
        "rows": rows,
        "device": str(device),
        "seed": seed,
        "repeats": repeats,
        "seconds": round(time.perf_counter() - began, 3),
        "date": provenance.now(),
        "command": provenance.command(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
    }
    write_json(folder / f"{spec.name}.json", record)
    return record


def default_folder() -> Path:
    """``benchmarks/results`` inside a checkout, else ``runs/benchmarks``."""
    return Path("benchmarks/results") if Path("benchmarks").is_dir() else Path("runs/benchmarks")
