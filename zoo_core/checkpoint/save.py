"""Writing checkpoints: safetensors only, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from zoo_core.checkpoint.keymap import KeyMap
from zoo_core.errors import CheckpointError
from zoo_core.hub.cache import atomically


def save_checkpoint(
    module: nn.Module | Mapping[str, torch.Tensor],
    path: str | os.PathLike[str],
    *,
    keymap: KeyMap | None = None,
    metadata: Mapping[str, str] | None = None,
    max_shard_bytes: int | None = None,
) -> list[Path]:
    """Write tensors as safetensors: to a temporary name, flushed, then renamed; an existing file is never changed in place.

    Args:
        module: A module (its state dict) or named tensors.  Tied tensors are written once, under their first name.
        path: ``*.safetensors``; with ``max_shard_bytes`` and more data than that, the shards are
            ``name-00001-of-0000N.safetensors`` and the index ``name.safetensors.index.json``.
        keymap: The map that is used for *loading*; its inverse is applied, so that the file has the published layout.
        metadata: Text fields for the header.

    Returns:
        The files written, the index last.

    Raises:
        NoSpaceError: The disk is full; nothing is left behind.
        CheckpointError: The path or a tensor cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"weights are written as safetensors, not {path.name!r}", fix=f"{path.stem}.safetensors")
    tensors: Mapping[str, torch.Tensor] = module.state_dict() if isinstance(module, nn.Module) else module
    tensors = {key: value for key, value in tensors.items() if isinstance(value, torch.Tensor)}
    if keymap is not None:
        mapped = keymap.inverse().apply(tensors)
        tensors = {key: mapped.get(key) for key in mapped}
    left = [key for key, value in tensors.items() if value.is_meta]
    if left:
        raise CheckpointError(f"{len(left)} tensors have no values (meta device): {', '.join(left[:4])}", fix="load or initialise the module first")
    unique = _unique(tensors)
    info = {"format": "pt"} | dict(metadata or {})
    shards = _shards(unique, max_shard_bytes)
    path.parent.mkdir(parents=True, exist_ok=True)
    if len(shards) == 1:
        _write(path, unique, info)
        return [path]
    files: list[Path] = []
    weight_map: dict[str, str] = {}
    for number, keys in enumerate(shards, 1):
        file = path.with_name(f"{path.stem}-{number:05d}-of-{len(shards):05d}.safetensors")
        _write(file, {key: unique[key] for key in keys}, info)
        files.append(file)
        weight_map |= dict.fromkeys(keys, file.name)
    total = sum(value.nbytes for value in unique.values())
    index = path.with_name(path.name + ".index.json")
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=1)
    atomically(index, lambda temporary: temporary.write_text(text))
    return [*files, index]


def _write(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    from safetensors.torch import save_file

    def write(temporary: Path) -> None:
        temporary.touch()
        mode = temporary.stat().st_mode  # what the user's umask gives; the library makes private files
        save_file(dict(tensors), str(temporary), metadata=dict(metadata))
        temporary.chmod(mode)

    atomically(path, write)


def _unique(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous tensors; the same memory is kept under its first name only, other overlaps are copied (safetensors refuses them)."""
    seen: dict[tuple[int, int], list[tuple[int, ...]]] = {}
    result: dict[str, torch.Tensor] = {}
    for key, value in tensors.items():
        value = value.detach()
        storage = value.untyped_storage().data_ptr() if value.numel() else 0
        view = (value.data_ptr(), value.nbytes, *value.stride(), *value.shape) if value.numel() else ()
        others = seen.setdefault((storage, value.device.index or 0), []) if storage else []
        if storage and view in others:
            continue
        # Another view of this memory was taken already, or only a part of the memory is: copy, so that the file holds just this tensor.
        alone = not others and value.is_contiguous() and value.untyped_storage().nbytes() == value.nbytes
        others.append(view)
        result[key] = value if alone else value.contiguous() if not others[:-1] else value.clone(memory_format=torch.contiguous_format)
    return result


def _shards(tensors: Mapping[str, torch.Tensor], limit: int | None) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    size = 0
    for key, value in tensors.items():
        if limit is not None and shards[-1] and size + value.nbytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(key)
        size += value.nbytes
    return shards
