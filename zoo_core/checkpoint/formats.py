"""One :class:`TensorSource` per file format: safetensors, torch files, GGUF."""

from __future__ import annotations

import json
import mmap
import mmap as mmap_module
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zoo_core.checkpoint.source import TensorSource
from zoo_core.errors import CheckpointError, MissingDependencyError, UnsafeFileError

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
"""Name of a number format in a safetensors header -> name in torch."""


class SafetensorsSource(TensorSource):
    """A safetensors file, checked by the safetensors library and then mapped privately (``mmap=True``) or read tensor by tensor.

    The file's size is checked again right before mapping: a mapped file that is shortened later kills the process, so files are
    only ever replaced by renaming, never rewritten in place.
    """

    def __init__(self, path: Path, *, mmap: bool = True) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = path
        try:
            with safe_open(str(path), framework="pt") as checked:  # the audited parser: overlaps, holes, overflows, unknown types
                self._metadata = dict(checked.metadata() or {})
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{str(path)!r} is not a valid safetensors file: {error}", fix="delete it and fetch it again") from error
        self._file = path.open("rb")
        (length,) = struct.unpack("<Q", self._file.read(8))
        header: dict[str, Any] = json.loads(self._file.read(length))
        header.pop("__metadata__", None)
        self._start = 8 + length
        self._entries = dict(sorted(header.items(), key=lambda item: item[1]["data_offsets"][0]))
        end = self._start + max((entry["data_offsets"][1] for entry in self._entries.values()), default=0)
        size = os.fstat(self._file.fileno()).st_size
        if size != end:
            raise CheckpointError(f"{str(path)!r} changed while it was opened: {end} bytes expected, {size} there", fix="fetch it again")
        self._kept: set[str] = set()
        self._map: mmap_module.mmap | None = mmap_module.mmap(self._file.fileno(), 0, access=mmap_module.ACCESS_COPY) if mmap and size else None

    def keys(self) -> list[str]:
        return list(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._entries[key]["shape"])

    def dtype(self, key: str) -> torch.dtype:
        name = self._entries[key]["dtype"]
        value: torch.dtype | None = getattr(torch, DTYPES.get(name, ""), None)
        if value is None:
            raise CheckpointError(f"tensor {key!r} in {str(self.path)!r} has number format {name!r}, which torch {torch.__version__} does not have here")
        return value

    def get(self, key: str) -> torch.Tensor:
        dtype, shape = self.dtype(key), self.shape(key)
        begin, end = self._entries[key]["data_offsets"]
        if begin == end:
            return torch.empty(shape, dtype=dtype)
        if self._map is not None:
            return torch.frombuffer(self._map, dtype=torch.uint8, count=end - begin, offset=self._start + begin).view(dtype).view(shape)
        data = torch.empty(end - begin, dtype=torch.uint8)
        view = memoryview(data.numpy())  # type: ignore[arg-type]
        self._file.seek(self._start + begin)
        done = 0
        while done < len(view):
            count = self._file.readinto(view[done:])
            if not count:
                raise CheckpointError(f"{str(self.path)!r} became shorter while it was read", fix="fetch it again")
            done += count
        return data.view(dtype).view(shape)

    def file(self, key: str) -> Path:
        return self.path

    def metadata(self) -> dict[str, Any]:
        return dict(self._metadata)

    def keep(self, key: str) -> None:
        self._kept.add(key)

    def release(self, key: str) -> None:
        begin, end = self._entries[key]["data_offsets"]
        page = mmap_module.PAGESIZE  # whole pages inside the tensor only: its neighbours may be in use
        first, last = -(-(self._start + begin) // page) * page, (self._start + end) // page * page
        if key not in self._kept and self._map is not None and last > first and hasattr(mmap_module, "MADV_DONTNEED"):
            self._map.madvise(mmap_module.MADV_DONTNEED, first, last - first)

    def close(self) -> None:
        self._file.close()
        self._map = None  # unmapped when the last tensor that uses it is gone


class TorchSource(TensorSource):
    """A ``torch.save`` file, opened with ``weights_only=True`` and nothing else; a wrapping ``state_dict`` is unwrapped.

    Raises:
        UnsafeFileError: The file holds objects whose unpickling would run code.
        CheckpointError: It is damaged or holds no tensors.
    """

    WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "params", "params_ema", "ema")

    def __init__(self, path: Path, *, mmap: bool = True, legacy: bool = False) -> None:
        import pickle

        self.path = path
        renamed = path.suffix == ".safetensors"  # torch.load would go by that name
        self._mapped = mmap and not legacy and not renamed
        self._kept: set[str] = set()
        try:
            if renamed:
                with path.open("rb") as file:
                    loaded = torch.load(file, map_location="cpu", weights_only=True)
            else:
                loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=self._mapped)
        except pickle.UnpicklingError as error:
            reason = str(error).split("\n")[0] if "GLOBAL" not in str(error) else _global_name(str(error))
            raise UnsafeFileError(
                f"{str(path)!r} needs code to be run when it is opened; the zoo never does that",
                tried=[f"torch.load(weights_only=True): {reason}"],
                fix="ask its publisher for a safetensors file",
            ) from error
        except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, OSError) as error:
            reason = str(error).split("\n")[0]
            raise CheckpointError(f"torch file {str(path)!r} is damaged: {reason}", fix="delete it and fetch it again") from error
        self._extra: dict[str, Any] = {}
        self._tensors = self._unwrap(loaded)

    def _unwrap(self, loaded: Any) -> dict[str, torch.Tensor]:
        for _ in range(3):
            if isinstance(loaded, Mapping):
                inner = next((name for name in self.WRAPPERS if isinstance(loaded.get(name), Mapping)), None)
                if inner is not None:
                    self._extra |= {str(key): value for key, value in loaded.items() if isinstance(value, (str, int, float))} | {"unwrapped": inner}
                    loaded = loaded[inner]
        if not isinstance(loaded, Mapping) or not all(isinstance(key, str) for key in loaded):
            raise CheckpointError(f"{str(self.path)!r} holds a {type(loaded).__name__}, not named tensors", fix="save a state_dict")
        tensors = {key: value.detach() for key, value in loaded.items() if isinstance(value, torch.Tensor)}
        self._extra |= {key: value for key, value in loaded.items() if isinstance(value, (str, int, float))}
        if not tensors:
            raise CheckpointError(f"{str(self.path)!r} holds no tensors (keys: {', '.join(list(loaded)[:8]) or 'none'})", fix="save a state_dict")
        return tensors

    def keys(self) -> list[str]:
        return list(self._tensors)

    def __contains__(self, key: object) -> bool:
        return key in self._tensors

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._tensors[key].shape)

    def dtype(self, key: str) -> torch.dtype:
        return self._tensors[key].dtype

    def get(self, key: str) -> torch.Tensor:
        return self._tensors[key]

    def file(self, key: str) -> Path:
        return self.path

    def metadata(self) -> dict[str, Any]:
        return dict(self._extra)

    def keep(self, key: str) -> None:
        self._kept.add(key)

    def release(self, key: str) -> None:
        if self._mapped and key not in self._kept:
            release_pages(self._tensors[key])

    def close(self) -> None:
        self._tensors = {}


class GgufSource(TensorSource):
    """A GGUF file through the ``gguf`` package.  Quantised tensors come out dequantised to float32, one at a time; shapes are torch's (row-major)."""

    def __init__(self, path: Path) -> None:
        try:
            import gguf
        except ImportError as error:
            raise MissingDependencyError(f"reading {path.name!r} needs the package gguf", fix="pip install gguf") from error
        self.path = path
        self._gguf = gguf
        try:
            self._reader = gguf.GGUFReader(str(path))
            self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        except (ValueError, KeyError, IndexError, OverflowError, OSError, TypeError) as error:
            raise CheckpointError(f"GGUF file {str(path)!r} is damaged: {error}", fix="delete it and fetch it again") from error

    def keys(self) -> list[str]:
        return list(self._tensors)

    def __contains__(self, key: object) -> bool:
        return key in self._tensors

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(int(side) for side in reversed(self._tensors[key].shape))

    def dtype(self, key: str) -> torch.dtype:
        plain = {
            "F64": torch.float64,
            "F16": torch.float16,
            "BF16": torch.bfloat16,
            "I8": torch.int8,
            "I16": torch.int16,
            "I32": torch.int32,
            "I64": torch.int64,
        }
        return plain.get(self._tensors[key].tensor_type.name, torch.float32)

    def get(self, key: str) -> torch.Tensor:
        tensor = self._tensors[key]
        kind = tensor.tensor_type.name
        if kind == "F32" or self.dtype(key) not in (torch.float32, torch.bfloat16):
            return torch.from_numpy(tensor.data.copy()).view(self.shape(key))
        if kind == "BF16":
            return torch.from_numpy(tensor.data.copy()).view(torch.bfloat16).view(self.shape(key))
        try:
            return torch.from_numpy(self._gguf.quants.dequantize(tensor.data, tensor.tensor_type)).view(self.shape(key))
        except NotImplementedError as error:
            raise CheckpointError(f"tensor {key!r} in {str(self.path)!r} has GGUF type {kind}, which the gguf package cannot dequantise") from error

    def file(self, key: str) -> Path:
        return self.path

    def metadata(self) -> dict[str, Any]:
        """All key-value fields of the file, plus ``"gguf.types"``: tensor -> stored type."""
        values: dict[str, Any] = {}
        for name, entry in self._reader.fields.items():
            values[name] = entry.contents()
        values["gguf.types"] = {key: tensor.tensor_type.name for key, tensor in self._tensors.items()}
        return values

    def close(self) -> None:
        self._tensors = {}


def _global_name(message: str) -> str:
    import re

    found = re.search(r"GLOBAL ([\w.]+)", message)
    return f"it asks for {found.group(1)}" if found else "it asks for a Python object"


# -- memory maps -------------------------------------------------------------------------------------------------------------


def release_pages(tensor: torch.Tensor) -> None:
    """Drop the pages that lie wholly inside a file-mapped tensor that nobody wrote to; they are read again when touched."""
    import ctypes

    advice = getattr(mmap, "MADV_DONTNEED", None)
    begin, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    first, last = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
    if advice is not None and last > first and tensor.is_contiguous():
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), advice)
