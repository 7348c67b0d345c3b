"""Implementations that gave wrong results or crashed on this machine, remembered across processes.

A file of JSON records in ``$ZOO_HOME/kernels`` (default ``~/.cache/zoo/kernels``), keyed by implementation and version, torch, triton, and the device's name and driver.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
from pathlib import Path

import torch

from zoo_kernels.spec import KernelImpl


def path() -> Path:
    """Where the records stand."""
    home = os.environ.get("ZOO_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "zoo")
    return Path(home) / "kernels" / "quarantine.json"


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
        return f"{torch.cuda.get_device_name()}-cuda{torch.version.cuda}"
    return kind


def records() -> dict[str, str]:
    """All records (key -> what was wrong); unreadable files count as empty."""
    try:
        data = json.loads(path().read_text(encoding="utf-8"))
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


def release(op: str | None = None) -> int:
    """Forget records (of one operation, or all); returns how many."""
    data = records()
    kept = {name: note for name, note in data.items() if op is not None and name.split("|")[0] != op}
    _write(kept)
    return len(data) - len(kept)


def _write(data: dict[str, str]) -> None:
    target = path()
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".quarantine-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1)
    os.replace(name, target)
