"""What this machine has, and whether it has the device and number format that somebody asks for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo_core.errors import DeviceError, InputError
from zoo_core.names import near_misses

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16", "float64", "float8_e4m3fn", "float8_e5m2")
SHORT = {"fp32": "float32", "f32": "float32", "float": "float32", "bf16": "bfloat16", "fp16": "float16", "f16": "float16", "half": "float16", "fp64": "float64",
         "fp8": "float8_e4m3fn"}  # fmt: skip
BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1, "int8": 1}


def memory() -> tuple[int, int]:
    """Main memory (total, available) in bytes; a container's limit counts."""
    page = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    total = page * os.sysconf("SC_PHYS_PAGES") if page else 0
    available = total
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    available = int(line.split()[1]) * 1024
    except OSError:
        pass
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    if limit is not None and limit < total:
        total = limit
        available = min(available, max(0, limit - (used or 0)))
    return total, available


def _cgroup(name: str) -> int | None:
    try:
        with open(f"/sys/fs/cgroup/{name}", encoding="ascii") as file:
            text = file.read().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def describe() -> dict[str, Any]:
    """This machine: cores, memory, accelerators (imports torch)."""
    import torch

    total, available = memory()
    machine: dict[str, Any] = {"cores": usable_cores(), "memory_bytes": total, "available_bytes": available, "accelerators": []}
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            free, _ = torch.cuda.mem_get_info(index)
            record = {"device": f"cuda:{index}", "name": properties.name, "memory_bytes": properties.total_memory, "available_bytes": free,
                      "capability": f"{properties.major}.{properties.minor}"}  # fmt: skip
            machine["accelerators"].append(record)
    if torch.backends.mps.is_available():
        machine["accelerators"].append({"device": "mps", "name": "Apple GPU", "memory_bytes": total, "available_bytes": available})
    return machine


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_device(device: Any = "auto") -> torch.device:
    """The device to use; ``"auto"`` is the first accelerator, else the CPU.

    Raises:
        DeviceError: This machine lacks it; the text names the nearest it has.
    """
    import torch

    if device is None or device == "auto":
        return torch.device("cuda") if torch.cuda.is_available() else torch.device("mps") if torch.backends.mps.is_available() else torch.device("cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError, ValueError):
        close = near_misses(str(device).partition(":")[0], ["cpu", "cuda", "mps", "auto"], 1)
        raise DeviceError(
            f"device {device!r} is unknown", tried=[f"did you mean: {close[0]}"] if close else [], fix="one of auto, cpu, cuda, cuda:N, mps"
        ) from None
    nearest = resolve_device("auto")
    if found.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise DeviceError(f"device {str(device)!r}: this machine has no usable CUDA device", tried=[_why_no_cuda()], fix=f"device={str(nearest)!r}")
        if (found.index or 0) >= count:
            raise DeviceError(f"device {str(device)!r}: this machine has {count} CUDA device(s)", fix=f"device='cuda:{count - 1}'")
    elif found.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"device {str(device)!r}: this machine has no Apple GPU", fix=f"device={str(nearest)!r}")
    elif found.type == "meta":
        raise DeviceError("device 'meta' holds no numbers", fix="device='cpu'")
    elif found.type not in ("cpu", "cuda", "mps", "xpu"):
        raise DeviceError(f"device {str(device)!r} is not supported", fix=f"device={str(nearest)!r}")
    return found


def _why_no_cuda() -> str:
    import torch

    return (
        "this torch was built without CUDA" if torch.version.cuda is None and torch.version.hip is None else "torch has CUDA, but no driver or device answers"
    )


def dtype_of(name: Any) -> torch.dtype:
    """``"bfloat16"``, ``"bf16"`` or a ``torch.dtype``.  Raises InputError with near misses."""
    import torch

    if isinstance(name, torch.dtype):
        return name
    text = str(name).removeprefix("torch.")
    text = SHORT.get(text, text)
    if text not in DTYPES:
        raise InputError(f"dtype {name!r} is unknown", tried=[f"did you mean: {', '.join(near_misses(text, DTYPES, 2))}"], fix=f"one of {', '.join(DTYPES)}")
    return getattr(torch, text)  # type: ignore[no-any-return]


def resolve_dtypes(dtype: Any, device: torch.device) -> dict[str, torch.dtype]:
    """Component -> dtype (``""`` for all others), each checked against the device.

    Args:
        dtype: None, one dtype for all, or a mapping component -> dtype.

    Raises:
        InputError: Unknown name.  DeviceError: The device lacks it; the nearest it has is named.
    """
    if dtype is None:
        return {}
    wanted = {str(key): dtype_of(value) for key, value in dtype.items()} if isinstance(dtype, Mapping) else {"": dtype_of(dtype)}
    for value in wanted.values():
        check_dtype(value, device)
    return wanted


def check_dtype(dtype: torch.dtype, device: torch.device) -> None:
    """Raise DeviceError when ``device`` cannot compute in ``dtype``."""
    import torch

    name = str(dtype).removeprefix("torch.")
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    reason, nearest = "", "float32"
    if not dtype.is_floating_point:
        reason = "models compute in floating point; integer weights come from quant="
    elif name.startswith("float8"):
        nearest = "bfloat16"
        if device.type != "cuda" or capability < (8, 9):
            reason = "8-bit floating point needs a CUDA device of capability 8.9 or newer"
    elif name == "bfloat16" and device.type == "cuda" and capability < (8, 0) and not torch.version.hip:
        reason, nearest = f"bfloat16 needs capability 8.0, this device has {capability[0]}.{capability[1]}", "float16"
    elif name == "float64" and device.type == "mps":
        reason = "Apple GPUs have no float64"
    if reason:
        raise DeviceError(f"dtype {name} cannot be used on {device}: {reason}", fix=f"dtype={nearest!r}", dtype=name, nearest=nearest)
