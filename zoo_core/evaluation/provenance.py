"""Where a number comes from: machine, versions, model, weights, command."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import sys
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo_core.interfaces import Model

PACKAGES = (
    "zoo-core",
    "zoo-kernels",
    "torch",
    "torchvision",
    "numpy",
    "transformers",
    "diffusers",
    "safetensors",
    "torchmetrics",
    "torch-fidelity",
    "torchao",
    "triton",
)


def now() -> str:
    """Time in UTC, to the second, ISO 8601."""
    return datetime.now(UTC).replace(microsecond=0).isoformat()


def command() -> str:
    """The command line, with the program's name only (no path to it)."""
    return shlex.join([Path(sys.argv[0]).name or "python", *sys.argv[1:]])


def versions() -> dict[str, str]:
    """Python, the libraries that decide about numbers, and every installed plugin (nothing is imported)."""
    found = {"python": platform.python_version()}
    plugins = {point.dist.name for point in metadata.entry_points(group="zoo.plugins") if point.dist is not None}
    for name in (*PACKAGES, *sorted(plugins)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Processor, cores, memory, accelerators, system (no host name)."""
    import torch

    facts: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "gpus": [],
    }
    if torch.cuda.is_available():
        facts["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        facts["cuda"] = torch.version.cuda
    return facts


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def sha256(path: str | os.PathLike[str]) -> str:
    """Digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_model(model: Model) -> dict[str, Any]:
    """Name, revision, weight files with digests, configuration, dtype per component, device, kernel choices."""
    report = model.report
    weights = []
    for record in report.files if report is not None else ():
        digest = record.sha256
        if not digest and Path(record.path).is_file():
            digest = sha256(record.path)
        weights.append({"file": Path(record.path).name, "source": record.source, "size": record.size, "sha256": digest, "verified": record.verified})
    card = model.card
    sources = card.get("weights") or ()
    revision = model.load_arguments.get("revision") or next(
        (entry.get("revision") for entry in sources if isinstance(entry, dict) and entry.get("revision")), None
    )
    modules = dict(model.modules())
    return {
        "name": model.name,
        "task": model.task,
        "plugin": card.get("plugin"),
        "revision": revision,
        "arguments": plain(model.load_arguments),
        "weights": weights,
        "layout": report.layout if report is not None else "",
        "parameters": sum(p.numel() for module in modules.values() for p in module.parameters()),
        "dtype": {name: _dtypes(module) for name, module in modules.items()},
        "device": next((str(p.device) for module in modules.values() for p in module.parameters()), "none"),
        "kernels": plain(report.kernels if report is not None else {}),
        "config": plain(model.config),
    }


def _dtypes(module: Any) -> str:
    return "+".join(sorted({str(p.dtype).removeprefix("torch.") for p in module.parameters()})) or "none"


def plain(value: Any) -> Any:
    """``value`` as JSON data; what JSON has no form for becomes text."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict) or hasattr(value, "items"):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return plain(value.item())
    return str(value)
