"""A corpus of damaged, foreign and malicious weight files, each with the error it must cause."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo_core.errors import CheckpointError, UnsafeFileError, UnsafePathError, ZooError


@dataclass(frozen=True, slots=True)
class HostileFile:
    """``says``: a word that the error's text must hold, so that a user learns what the file is."""

    name: str
    path: Path
    error: type[ZooError]
    says: str


class _Payload:
    """Unpickling this makes the file ``marker``: the proof that code ran."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.marker,)


def safetensors_bytes(header: dict[str, Any] | bytes, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file with any header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def hostile_files(folder: str | os.PathLike[str]) -> list[HostileFile]:
    """Write the corpus into ``folder``.  If code of a file ever runs, ``folder/CODE-RAN`` appears."""
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    marker = str(root / "CODE-RAN")
    f32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    good = safetensors_bytes({"a": f32}, b"\0" * 8)
    corpus: list[HostileFile] = []

    def add(name: str, content: bytes | Callable[[Path], None], says: str, error: type[ZooError] = CheckpointError) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(path)
        else:
            path.write_bytes(content)
        corpus.append(HostileFile(name, path, error, says))

    add("empty.safetensors", b"", "empty")
    add("three-bytes.safetensors", b"abc", "3 bytes")
    add("web-page.safetensors", b"<!DOCTYPE html><html><body>Please log in</body></html>" * 40, "web page")
    add("lfs-pointer.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234\n", "LFS pointer")
    add("json-error.safetensors", b'{"error": "Repository not found"}', "JSON")
    add("text.safetensors", b"404: Not Found", "plain text")
    add("truncated.safetensors", good[:-3], "truncated")
    add("truncated-header.safetensors", good[:20], "truncated")
    add("appended.safetensors", good + b"xyz", "too many")
    add("huge-header.safetensors", safetensors_bytes({"a": f32}, b"\0" * 8, length=1 << 62), "claims")
    add("overlap.safetensors", safetensors_bytes({"a": f32, "b": {**f32, "data_offsets": [4, 12]}}, b"\0" * 12), "safetensors")
    add("hole.safetensors", safetensors_bytes({"a": f32, "b": {**f32, "data_offsets": [16, 24]}}, b"\0" * 24), "safetensors")
    add("shape-lies.safetensors", safetensors_bytes({"a": {**f32, "shape": [3]}}, b"\0" * 8), "safetensors")
    add("shape-overflows.safetensors", safetensors_bytes({"a": {**f32, "shape": [1 << 40, 1 << 40]}}, b"\0" * 8), "safetensors")
    add("unknown-dtype.safetensors", safetensors_bytes({"a": {**f32, "dtype": "F13"}}, b"\0" * 8), "safetensors")
    add("not-json.safetensors", safetensors_bytes(b"{not json", b"\0" * 8), "header")
    add("deep-json.safetensors", safetensors_bytes(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b""), "header")
    add("pickle.safetensors", pickle.dumps(_Payload(marker)), "pickle", UnsafeFileError)
    add("torch.safetensors", lambda path: _torch(path, {"a": 1}), "torch file", UnsafeFileError)
    add("payload.pt", lambda path: _torch(path, _Payload(marker)), "code", UnsafeFileError)
    add("payload-in-state-dict.bin", lambda path: _torch(path, {"state_dict": {"a": _Payload(marker)}}), "code", UnsafeFileError)
    add("bare-pickle.bin", pickle.dumps(_Payload(marker), protocol=4), "pickle", UnsafeFileError)
    add("truncated.pt", lambda path: _cut(path), "damaged")
    add("no-tensors.pt", lambda path: _torch(path, {"epoch": 3}), "no tensors")
    add("list.pt", lambda path: _torch(path, [1, 2]), "not named tensors")
    add("picture.bin", b"\x89PNG\r\n\x1a\n" + b"\0" * 64, "PNG")
    add("archive.bin", b"\x1f\x8b\x08" + b"\0" * 64, "gzip")
    add("truncated.gguf", b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 1 << 40), "damaged")
    add("wheel.bin", _zip({"x.dist-info/WHEEL": b""}), "wheel", UnsafeFileError)
    add("escape/model.safetensors.index.json", json.dumps({"weight_map": {"a": "../../outside.safetensors"}}).encode(), "not safe", UnsafePathError)
    add("absolute/model.safetensors.index.json", json.dumps({"weight_map": {"a": "/etc/hostname"}}).encode(), "not safe", UnsafePathError)
    add("broken/model.safetensors.index.json", b'{"weight_map": [1]}', "index")
    return corpus


UNSAFE_NAMES = (
    "../x", "a/../../x", "/etc/passwd", "C:\\x", "c:x", "a\\b", "a\0b", "", ".", "..", "a//b", "a/./b", "~/x", "CON", "nul.txt", "a/COM1.safetensors", "lpt9",
    "a.", "a ", "a/b./c", "a\nb", "\x7f", "x" * 256, "a/" * 600 + "b", "a?b", "a|b", "\ud800",
)  # fmt: skip
"""Names from outside that must never become paths."""


def _torch(path: Path, value: Any) -> None:
    import torch

    torch.save(value, path)


def _cut(path: Path) -> None:
    import torch

    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1000)}, buffer)
    path.write_bytes(buffer.getvalue()[:2000])


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()
