"""What this machine has, whether it has the device and number format that somebody asks for, and whether a model fits it.

The memory formula (all coefficients stand below ``memory:`` in the card; what is absent counts 0):

    weights    = weights_bytes * bytes(dtype) / bytes(published dtype)
    total      = weights + fixed_bytes
               + batch * (per_batch_bytes + per_pixel_bytes * height * width + per_token_bytes * length)

``per_pixel_bytes`` is the peak of activations per picture pixel (for latent models: of the largest stage, the decoder); ``per_token_bytes`` the
key-value cache per token; activations are scaled like the weights when ``dtype`` differs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo_core.errors import DeviceError, InputError
from zoo_core.names import near_misses

if TYPE_CHECKING:
    import torch


from dataclasses import asdict, dataclass

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


# -- does it fit? ------------------------------------------------------------------------------------------------------------


HEADROOM = 0.9
"""Share of the free memory that may be used."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes by cause, for one setting."""

    weights_bytes: int
    fixed_bytes: int
    activation_bytes: int
    cache_bytes: int
    dtype: str
    height: int
    width: int
    batch: int
    length: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.fixed_bytes + self.activation_bytes + self.cache_bytes

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "total_bytes": self.total_bytes}


def estimate(
    card: Mapping[str, Any], *, height: int | None = None, width: int | None = None, batch: int = 1, length: int | None = None, dtype: str | None = None
) -> Estimate:
    """Estimate for one setting; sizes default to the card's ``defaults`` (``height``, ``width`` or ``size``; ``length`` or ``max_new_tokens``).

    Raises:
        InputError: A size is not positive, or the card says nothing about memory or parameters.
    """
    coefficients = card.get("memory") or {}
    native = native_dtype(card)
    chosen = SHORT.get(dtype, dtype) if dtype else native
    if chosen not in BYTES:
        raise InputError(f"dtype {dtype!r} is unknown", fix=f"one of {', '.join(BYTES)}")
    scale = BYTES[chosen] / BYTES[native]
    stored = coefficients.get("weights_bytes")
    if stored is None:
        if not card.get("parameters"):
            raise InputError(f"the card of {card.get('name')!r} says neither memory.weights_bytes nor parameters", fix="zoo info shows the card")
        stored = card["parameters"] * BYTES[native]
    defaults = card.get("defaults") or {}
    size = defaults.get("size")
    height = height or defaults.get("height") or (size if isinstance(size, int) else None) or width or 0
    width = width or defaults.get("width") or height
    length = length if length is not None else int(defaults.get("length") or defaults.get("max_new_tokens") or 0)
    for label, value in (("height", height), ("width", width), ("length", length), ("batch", batch - 1)):
        if value < 0:
            raise InputError(f"{label} must be positive", fix=f"--{label} N")
    pixels = float(coefficients.get("per_pixel_bytes") or 0) * height * width
    per_batch = float(coefficients.get("per_batch_bytes") or 0)
    tokens = float(coefficients.get("per_token_bytes") or 0) * length
    return Estimate(
        weights_bytes=round(stored * scale),
        fixed_bytes=round(coefficients.get("fixed_bytes") or 0),
        activation_bytes=round(batch * (per_batch + pixels) * scale),
        cache_bytes=round(batch * tokens * scale),
        dtype=chosen, height=height, width=width, batch=batch, length=length,
    )  # fmt: skip


def native_dtype(card: Mapping[str, Any]) -> str:
    """The dtype that the card's bytes are for."""
    precision = card.get("precision") or {}
    name = precision.get("default") or next(iter(precision.values()), "float32")
    return name if name in BYTES else "float32"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an estimate fits one place."""

    device: str
    total_bytes: int
    available_bytes: int
    fits: bool


def places(*, accelerators: bool = True) -> list[dict[str, Any]]:
    """Memories of this machine (asking for accelerators imports torch)."""
    total, available = memory()
    found = [{"device": "cpu", "name": "main memory", "memory_bytes": total, "available_bytes": available}]
    if accelerators:
        found = [*describe()["accelerators"], *found]
    return found


def judge(wanted: Estimate, where: list[dict[str, Any]]) -> list[Verdict]:
    """One verdict per memory; at most :data:`HEADROOM` of what is free counts."""
    return [Verdict(p["device"], p["memory_bytes"], p["available_bytes"], wanted.total_bytes <= HEADROOM * p["available_bytes"]) for p in where]


def alternatives(card: Mapping[str, Any], wanted: Estimate, available: int) -> list[tuple[str, Estimate]]:
    """Smaller settings that would fit in ``available`` bytes, mildest first."""
    limit = HEADROOM * available
    options: list[tuple[str, dict[str, Any]]] = []
    if wanted.batch > 1:
        options += [(f"batch {b}", {"batch": b}) for b in _halves(wanted.batch, 1)]
    if wanted.dtype in ("float32", "float64"):
        options.append(("dtype bfloat16", {"dtype": "bfloat16"}))
    if wanted.activation_bytes and wanted.height > 64:
        options += [(f"{s}x{s} pixels", {"height": s, "width": s}) for s in _halves(max(wanted.height, wanted.width), 64)]
    if wanted.cache_bytes:
        options += [(f"length {n}", {"length": n}) for n in _halves(wanted.length, 256)]
    base = {"height": wanted.height, "width": wanted.width, "batch": wanted.batch, "length": wanted.length, "dtype": wanted.dtype}
    found: list[tuple[str, Estimate]] = []
    kinds: set[str] = set()
    for label, change in options:
        kind = next(iter(change))
        if kind not in kinds and (smaller := estimate(card, **{**base, **change})).total_bytes <= limit:
            found.append((label, smaller))
            kinds.add(kind)
    if not found and wanted.dtype == "float32":
        least = {key: change[key] for _, change in options for key in change}
        if (smaller := estimate(card, **{**base, **least})).total_bytes <= limit:
            found.append((", ".join(f"{key} {value}" for key, value in least.items()), smaller))
    return found


def _halves(value: int, least: int) -> list[int]:
    result = []
    while (value := value // 2) >= least:
        result.append(value)
    return result


def advice(card: Mapping[str, Any], wanted: Estimate, available: int | None = None) -> str:
    """What to do when it does not fit, in one line."""
    found = alternatives(card, wanted, memory()[1] if available is None else available)
    if found:
        return "would fit: " + "; or ".join(f"{label} ({smaller.total_bytes / 1e9:.1f} GB)" for label, smaller in found)
    return "a smaller model (zoo list --max-memory), quant=, or a machine with more memory"
