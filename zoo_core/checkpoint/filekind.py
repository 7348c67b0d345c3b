"""What a file really is, judged by its first bytes (and never by unpickling it)."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from zoo_core.errors import CheckpointError

MAX_HEADER = 100_000_000
"""The largest safetensors header that is believed (the format's own limit)."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """Verdict of :func:`sniff`.

    Attributes:
        name: ``safetensors``, ``torch-zip``, ``torch-legacy``, ``pickle``, ``gguf``, ``lfs-pointer``, ``html``, ``json``, ``text``, ``zip``, ``tar``,
            ``gzip``, ``numpy``, ``hdf5``, ``image``, ``zoo-pack``, ``empty``, ``folder`` or ``unknown``.
        text: The same in words, with what is wrong if something is.
        damaged: The kind is recognised but the file is truncated or otherwise broken.
    """

    name: str
    text: str
    damaged: bool = False

    @property
    def is_weights(self) -> bool:
        return self.name in ("safetensors", "torch-zip", "torch-legacy", "gguf") and not self.damaged


_MAGIC = (
    (b"GGUF", "gguf", "a GGUF file"),
    (b"\x1f\x8b", "gzip", "a gzip archive"),
    (b"BZh", "gzip", "a bzip2 archive"),
    (b"\xfd7zXZ", "gzip", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "gzip", "a zstd archive"),
    (b"7z\xbc\xaf", "gzip", "a 7z archive"),
    (b"\x93NUMPY", "numpy", "a NumPy array file"),
    (b"\x89HDF", "hdf5", "an HDF5 file (Keras?)"),
    (b"\x89PNG", "image", "a PNG picture"),
    (b"\xff\xd8\xff", "image", "a JPEG picture"),
    (b"%PDF", "unknown", "a PDF document"),
    (b"\x7fELF", "unknown", "a program (ELF)"),
    (b"MZ", "unknown", "a Windows program"),
)


def sniff(path: str | os.PathLike[str]) -> FileKind:
    """Say what ``path`` is from at most its first megabytes; opens nothing with code in it.

    Raises:
        CheckpointError: The file does not exist or cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return FileKind("folder", "a folder")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(1024)
            if size == 0:
                return FileKind("empty", "an empty file (0 bytes)", True)
            kind = _text_kind(head, size) or _binary_kind(head, size)
            if kind is None and len(head) >= 9 and head[8:9] == b"{":
                kind = _safetensors_kind(file, head, size)
            if kind is None and head[:4] == b"PK\x03\x04":
                kind = _zip_kind(path)
            if kind is None and size > 512 and head[257:262] == b"ustar":
                kind = FileKind("tar", "a tar archive")
    except FileNotFoundError as error:
        raise CheckpointError(f"weights file {str(path)!r} does not exist", fix="check the path") from error
    except OSError as error:
        raise CheckpointError(f"weights file {str(path)!r} cannot be read: {error.strerror or error}", fix="check its permissions") from error
    return kind or FileKind("unknown", f"an unknown kind of file (starts with {head[:8].hex(' ')})")


def _text_kind(head: bytes, size: int) -> FileKind | None:
    if head.startswith(b"version https://git-lfs"):
        return FileKind("lfs-pointer", "a Git LFS pointer: the text that stands for the real file in a git checkout without LFS", True)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:256].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<body")):
        return FileKind("html", "a web page (an error or log-in page saved instead of the file: proxy, gated repository or wrong address?)", True)
    if start[:1] in (b"{", b"["):
        return FileKind("json", "a JSON text, not weights" + (" (an error message?)" if b"error" in start else ""))
    if size >= 4 and all(byte in b"\t\r\n\f" or 32 <= byte < 127 for byte in head):
        return FileKind("text", f"a plain text of {size} bytes, not weights")
    return None


def _binary_kind(head: bytes, size: int) -> FileKind | None:
    for magic, name, text in _MAGIC:
        if head.startswith(magic):
            return FileKind(name, text)
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        # The old torch format is a chain of pickles that starts with a long integer, the magic number 0x1950a86a20f9469cfc6c.
        if b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19" in head[:32]:
            return FileKind("torch-legacy", "a torch file of the old format (before torch 1.6)")
        return FileKind("pickle", "a bare Python pickle")
    if size < 8:
        return FileKind("unknown", f"a file of only {size} bytes", True)
    return None


def _safetensors_kind(file: object, head: bytes, size: int) -> FileKind | None:
    (length,) = struct.unpack("<Q", head[:8])
    if length > MAX_HEADER:
        return FileKind("safetensors", f"like a safetensors file, but its header claims {length} bytes", True)
    if 8 + length > size:
        return FileKind("safetensors", f"a truncated safetensors file: the header alone needs {8 + length} bytes, the file has {size}", True)
    file.seek(8)  # type: ignore[attr-defined]
    try:
        header = json.loads(file.read(length))  # type: ignore[attr-defined]
        end = 8 + length + max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return FileKind("safetensors", "a safetensors file with a broken header", True)
    if end > size:
        return FileKind("safetensors", f"a truncated safetensors file: {end} bytes are needed, {size} are there", True)
    if end < size:
        return FileKind("safetensors", f"a safetensors file with {size - end} bytes too many at the end", True)
    return FileKind("safetensors", "a safetensors file")


def _zip_kind(path: Path) -> FileKind:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return FileKind("torch-zip", "a truncated or damaged zip archive (most torch files are zip archives)", True)
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return FileKind("torch-zip", "a torch file (zip archive with pickle inside)")
    if any(name.endswith("constants.pkl") for name in names):
        return FileKind("zip", "a TorchScript archive, which holds code")
    if "zoo-pack.json" in names:
        return FileKind("zoo-pack", "a bundle made by `zoo pack`")
    if any(name.endswith(".dist-info/WHEEL") for name in names):
        return FileKind("zip", "a Python wheel")
    return FileKind("zip", "a zip archive")
