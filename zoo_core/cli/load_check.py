"""What ``zoo load-check`` finds out about a file."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from zoo_core.checkpoint.filekind import sniff
from zoo_core.errors import ZooError


def describe(path: str | Path, *, scan: bool = False, save: Path | None = None) -> dict[str, Any]:
    """Facts about a weights file, folder or bundle: format, tensors, number formats, parameters, fitting layouts and models.

    Args:
        scan: Look for NaN and infinity.
        save: Write all tensors there as safetensors; a torch file is accepted under any name for this.

    Raises:
        CheckpointError, UnsafeFileError: When it cannot be loaded; the text says what it is.
    """
    import torch

    from zoo_core.checkpoint.open import open_checkpoint
    from zoo_core.checkpoint.save import save_checkpoint

    path = Path(path)
    kind = sniff(path)
    facts: dict[str, Any] = {"path": str(path), "is": kind.text}
    if kind.name == "zoo-pack":
        from zoo_core.hub.pack import unpack

        path, manifest = unpack(path)
        facts |= {"model": manifest["model"], "made": manifest.get("created"), "licence": manifest.get("licence") or {}}
    parts = _components(path)
    if parts:
        facts["parts"] = parts
        return facts | _matches([], path, 0)
    converting = save is not None and kind.name in ("torch-zip", "torch-legacy") and path.suffix == ".safetensors"
    with _as_torch(path, kind.name) if converting else open_checkpoint(path) as source:
        keys = source.keys()
        parameters = sum(math.prod(source.shape(key)) for key in keys)
        facts |= {
            "tensors": len(keys),
            "parameters": parameters,
            "bytes": sum(source.nbytes(key) for key in keys),
            "formats": dict(Counter(str(source.dtype(key)).removeprefix("torch.") for key in keys).most_common()),
            "keys": keys[:3] + (["..."] if len(keys) > 3 else []),
        }
        text = {key: value for key, value in source.metadata().items() if isinstance(value, (str, int, float)) and len(str(value)) < 80}
        if text:
            facts["metadata"] = dict(list(text.items())[:12])
        if scan:
            bad = []
            for key in keys:
                if source.dtype(key).is_floating_point and not bool(torch.isfinite(source.get(key).float()).all()):
                    bad.append(key)
                source.release(key)
            facts["not finite"] = bad
        facts |= _matches(keys, path, parameters)
        if save is not None:
            facts["saved"] = [str(file) for file in save_checkpoint({key: source.get(key) for key in keys}, save)]
    return facts


def _as_torch(path: Path, kind: str) -> Any:
    from zoo_core.checkpoint.formats import TorchSource

    return TorchSource(path, legacy=kind == "torch-legacy")


def _components(path: Path) -> list[str]:
    """Sub-folders with weights, when the folder itself holds none: a published pipeline."""
    if not path.is_dir():
        return []
    endings = ("*.safetensors", "*.bin", "*.pth", "*.pt", "*.gguf")
    if any(item for ending in endings for item in path.glob(ending)):
        return []
    return sorted({item.parent.name for ending in endings for item in path.glob(f"*/{ending}")})


def _matches(keys: list[str], path: Path, parameters: int) -> dict[str, Any]:
    """Layouts by keys and models by ``recognises`` entries, layout and parameter count, over the installed plugins."""
    from zoo_core.checkpoint.template import fits
    from zoo_core.recognition import fits as fits_folder
    from zoo_core.recognition import rules
    from zoo_core.registry import get_registry
    from zoo_core.specs import WeightsSpec

    registry = get_registry()
    layouts: list[str] = []
    for name in registry.names("weights") if keys else ():
        try:
            spec = registry.get("weights", name)
        except ZooError:
            continue
        if isinstance(spec, WeightsSpec) and fits(keys, spec):
            layouts.append(name)
    models: dict[str, str] = {}
    for name, card in registry.models(installed=True).items():
        used = {item.get("layout") for item in card.get("weights") or ()} | set(card.get("layouts") or ())
        if used & set(layouts):
            count = card.get("parameters")
            if not count or abs(count - parameters) <= 0.01 * parameters:
                models[name] = "parameters fit" if count else "layout fits"
    folder = path if path.is_dir() else path.parent
    for _, rule in rules(registry):
        if fits_folder(str(folder), rule):
            models.setdefault(str(rule["model"]), f"{rule['file']} says so")
    return {"layouts": layouts, "models": models or "-"}
