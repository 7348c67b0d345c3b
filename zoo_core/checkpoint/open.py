"""From a path (file, folder, index, list of shards) to a :class:`TensorSource`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from zoo_core.checkpoint.filekind import FileKind, sniff
from zoo_core.checkpoint.formats import GgufSource, SafetensorsSource, TorchSource
from zoo_core.checkpoint.source import TensorSource, UnionSource
from zoo_core.errors import CheckpointError, UnsafeFileError

PathLike = str | os.PathLike[str]
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf")
_NETWORK = ("nfs", "cifs", "smb", "lustre", "fuse", "9p", "gpfs", "ceph", "beegfs", "afs")


def open_checkpoint(path: PathLike | Iterable[PathLike], *, mmap: bool | Literal["auto"] = "auto") -> TensorSource:
    """Open weights without reading them.

    Args:
        path: A file (``.safetensors``, ``.bin``/``.pt``/``.pth``, ``.gguf``), an index (``*.index.json``), a folder that holds one of these,
            or a list of shards.
        mmap: Map the files (no copy) or read tensor by tensor; ``"auto"`` maps unless the file lies on a network file system.

    Raises:
        CheckpointError: Damaged, foreign, absent or contradictory files; the text says what each file really is.
        UnsafeFileError: Opening the file would run code, or a pickle carries the name of a safetensors file.

    >>> import tempfile, torch
    >>> from zoo_core.checkpoint import save_checkpoint
    >>> folder = tempfile.mkdtemp()
    >>> _ = save_checkpoint({"a": torch.ones(2)}, f"{folder}/model.safetensors")
    >>> open_checkpoint(folder).get("a")
    tensor([1., 1.])
    """
    if not isinstance(path, (str, os.PathLike)):
        paths = [Path(item) for item in path]
        if len(paths) != 1:
            if not paths:
                raise CheckpointError("no weights file was given", fix="name at least one file")
            return UnionSource([_open_file(item, mmap) for item in paths], name=str(paths[0].parent))
        path = paths[0]
    path = Path(path)
    if path.is_dir():
        path = _choose(path)
    if path.name.endswith(".index.json"):
        return _open_index(path, mmap)
    return _open_file(path, mmap)


def _open_file(path: Path, mmap: bool | Literal["auto"]) -> TensorSource:
    kind = sniff(path)
    mapped = not on_network(path) if mmap == "auto" else mmap
    if kind.damaged or not kind.is_weights:
        raise _refusal(path, kind)
    if kind.name in ("torch-zip", "torch-legacy"):
        if path.suffix == ".safetensors":
            raise _refusal(path, kind)
        return TorchSource(path, mmap=mapped, legacy=kind.name == "torch-legacy")
    return GgufSource(path) if kind.name == "gguf" else SafetensorsSource(path, mmap=mapped)


def _refusal(path: Path, kind: FileKind) -> CheckpointError | UnsafeFileError:
    if kind.name in ("pickle", "torch-zip", "torch-legacy", "zip") and not kind.damaged:
        convert = f"zoo load-check {path} --save {path.with_suffix('')}.converted.safetensors"
        what = f"{str(path)!r} is {kind.text}" + (", although its name says safetensors" if path.suffix == ".safetensors" else "")
        fix = "ask for a safetensors file" if kind.name in ("pickle", "zip") else f"rename it to .pt if you trust where it came from, or convert it: {convert}"
        return UnsafeFileError(what + "; it was not opened", fix=fix, kind=kind.name)
    fixes = {
        "lfs-pointer": "git lfs pull (or fetch the file with zoo pull)",
        "html": "delete it and fetch it again; check proxy, log-in and address",
        "empty": "delete it and fetch it again",
    }
    fix = fixes.get(kind.name, "delete it and fetch it again" if kind.damaged else "give a .safetensors, .bin/.pt/.pth or .gguf file")
    return CheckpointError(f"{str(path)!r} cannot be loaded: it is {kind.text}", fix=fix, kind=kind.name)


def _choose(folder: Path) -> Path:
    """The weights in a folder: an index first, then the single safetensors file, then .bin and the others."""
    names = sorted(item.name for item in folder.iterdir() if item.is_file())
    for ending in (".safetensors.index.json", ".bin.index.json"):
        found = [name for name in names if name.endswith(ending)]
        if len(found) > 1:
            raise CheckpointError(f"folder {str(folder)!r} holds several index files: {', '.join(found)}", fix="name the one you mean")
        if found:
            return folder / found[0]
        single = [name for name in names if name.endswith(ending.removesuffix(".index.json"))]
        preferred = [name for name in single if name in ("model.safetensors", "diffusion_pytorch_model.safetensors", "pytorch_model.bin", "model.bin")]
        if len(single) == 1 or len(preferred) == 1:
            return folder / (single[0] if len(single) == 1 else preferred[0])
        if single:
            raise CheckpointError(
                f"folder {str(folder)!r} holds {len(single)} weight files and no index: {', '.join(single[:6])}",
                fix="name the file, or pass the shards as a list",
            )
    rest = [name for name in names if name.endswith(_SUFFIXES)]
    if len(rest) == 1:
        return folder / rest[0]
    seen = ", ".join(names[:8]) or "nothing"
    raise CheckpointError(
        f"folder {str(folder)!r} holds {'several' if rest else 'no'} weight files", tried=[f"in it: {seen}"], fix="name the file that you mean"
    )


def _open_index(path: Path, mmap: bool | Literal["auto"]) -> TensorSource:
    from zoo_core.names import safe_join

    try:
        if path.stat().st_size > 200_000_000:
            raise ValueError("larger than 200 MB")
        content = json.loads(path.read_bytes())
        weight_map = content["weight_map"]
        if not isinstance(weight_map, dict) or not all(isinstance(item, str) for pair in weight_map.items() for item in pair):
            raise ValueError("'weight_map' is not a table of names")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"shard index {str(path)!r} cannot be read: {type(error).__name__}: {error}", fix="fetch it again") from error
    shards = {name: safe_join(path.parent, name) for name in dict.fromkeys(weight_map.values())}
    absent = [name for name, file in shards.items() if not file.is_file()]
    if absent:
        lost = sum(1 for name in weight_map.values() if name in set(absent))
        raise CheckpointError(
            f"checkpoint {str(path)!r}: {len(absent)} of {len(shards)} shards are absent ({lost} of {len(weight_map)} tensors)",
            tried=[f"absent: {name}" for name in absent[:8]],
            fix="fetch the absent files (zoo pull)",
            absent=absent,
        )
    metadata = content.get("metadata")
    union = UnionSource([_open_file(file, mmap) for file in shards.values()], name=str(path), metadata=metadata if isinstance(metadata, dict) else {})
    wrong = [f"{key!r}: index says {name}" for key, name in weight_map.items() if key not in union or union.file(key) != shards[name]]
    if wrong:
        raise CheckpointError(
            f"checkpoint {str(path)!r}: index and shards disagree on {len(wrong)} tensors",
            tried=wrong[:8],
            fix="fetch index and shards again, from one revision",
        )
    return union


def on_network(path: Path) -> bool:
    """Whether ``path`` lies on a network file system (Linux; False where that cannot be told)."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text(errors="replace").splitlines()]
        target = str(path.resolve())
    except OSError:
        return False
    best, kind = "", ""
    for fields in mounts:
        point = fields[1].replace("\\040", " ")
        if len(point) >= len(best) and (target == point or target.startswith(point.rstrip("/") + "/")):
            best, kind = point, fields[2]
    return kind.startswith(_NETWORK)
