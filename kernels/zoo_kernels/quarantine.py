"""Implementations that gave wrong results or crashed on this machine, remembered across processes; and those that passed their check.

Two files of JSON records in ``$ZOO_HOME/kernels`` (default ``~/.cache/zoo/kernels``), ``quarantine.json`` and ``checked.json``.
Keys: implementation and version, torch, triton, and the device's name, driver and capability.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
import warnings
from pathlib import Path

import torch

from zoo_kernels.spec import KernelImpl


def path(name: str = "quarantine") -> Path:
    """Where the records stand."""
    home = os.environ.get("ZOO_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "zoo")
    return Path(home) / "kernels" / f"{name}.json"


def key(implementation: KernelImpl, device: torch.device) -> str:
    """Identity of an implementation on this machine."""
    return "|".join((implementation.op, implementation.name, str(implementation.version), torch.__version__, _triton(), _device(device.type)))


@functools.lru_cache(maxsize=1)
def _triton() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("triton")
    except PackageNotFoundError:
        return "none"


@functools.lru_cache(maxsize=8)
def _device(kind: str) -> str:
    if kind == "cuda" and torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        return f"{torch.cuda.get_device_name()}-sm{major}{minor}-cuda{torch.version.cuda or torch.version.hip}-driver{_driver()}"
    return kind


def _driver() -> str:
    """Version of the NVIDIA driver as the kernel module tells it."""
    try:
        words = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8").split()
    except OSError:
        return "unknown"
    return next((word for word in words if word.count(".") >= 1 and word.replace(".", "").isdigit()), "unknown")


def records(name: str = "quarantine") -> dict[str, str]:
    """All records (key -> what was wrong); unreadable files count as empty."""
    try:
        data = json.loads(path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def quarantined(implementation: KernelImpl, device: torch.device) -> str:
    """What was wrong with it here ("" when nothing is known)."""
    return records().get(key(implementation, device), "")


def quarantine(implementation: KernelImpl, device: torch.device, note: str) -> None:
    """Remember; written to a temporary file and renamed."""
    data = records()
    data[key(implementation, device)] = note
    _write(data)


def release_one(implementation: KernelImpl, device: torch.device) -> None:
    """Forget the record of one implementation on this machine."""
    data = records()
    if data.pop(key(implementation, device), None) is not None:
        _write(data)


def trusted(implementation: KernelImpl, device: torch.device) -> bool:
    """Whether it passed its check on this machine."""
    return key(implementation, device) in records("checked")


def trust(implementation: KernelImpl, device: torch.device) -> None:
    """Remember that it passed."""
    _write({**records("checked"), key(implementation, device): "passed"}, "checked")


def release(op: str | None = None) -> int:
    """Forget records (of one operation, or all); returns how many."""
    data = records()
    kept = {name: note for name, note in data.items() if op is not None and name.split("|")[0] != op}
    _write(kept)
    return len(data) - len(kept)


def _write(data: dict[str, str], name: str = "quarantine") -> None:
    """Through a temporary file; where the folder cannot be written nothing is remembered beyond this process, and a warning says so."""
    target = path(name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{name}-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=1)
        os.replace(temporary, target)
    except OSError as error:
        warnings.warn(f"kernel verdicts cannot be kept in {target.parent}: {error.strerror or error}", RuntimeWarning, stacklevel=2)
