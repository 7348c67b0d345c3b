"""The one view that everything has of a checkpoint: named tensors that are read when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from zoo_core.errors import CheckpointError


class TensorSource:
    """Named tensors, read lazily.  Subclasses implement :meth:`keys`, :meth:`get`, :meth:`shape`, :meth:`dtype` and :meth:`file`.

    A source is a context manager; tensors that were taken from it stay valid after :meth:`close`.
    """

    def keys(self) -> list[str]:
        """Names of all tensors, in the order in which they lie in the file."""
        raise NotImplementedError

    def shape(self, key: str) -> tuple[int, ...]:
        raise NotImplementedError

    def dtype(self, key: str) -> torch.dtype:
        raise NotImplementedError

    def get(self, key: str) -> torch.Tensor:
        """The tensor on the CPU.  Mapped sources return a view of the file without copying (private: writing to it never changes the file)."""
        raise NotImplementedError

    def file(self, key: str) -> Path | None:
        """The file that holds ``key``; None for tensors in memory."""
        raise NotImplementedError

    def metadata(self) -> dict[str, Any]:
        """Text fields stored with the tensors."""
        return {}

    def keep(self, key: str) -> None:
        """Say that a view of ``key`` is in use for good: :meth:`release` leaves its pages (and whatever was written to them) alone."""

    def release(self, key: str) -> None:
        """Give the file's pages of ``key`` back to the system.  Call it when the tensor from :meth:`get` is no longer used."""

    def close(self) -> None:
        """Close file handles."""

    def nbytes(self, key: str) -> int:
        """Bytes of the tensor that :meth:`get` returns."""
        count = self.dtype(key).itemsize
        for side in self.shape(key):
            count *= side
        return count

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __enter__(self) -> TensorSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DictSource(TensorSource):
    """Tensors in memory.

    >>> DictSource({"a": torch.zeros(2, 3)}).shape("a")
    (2, 3)
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], *, file: Path | None = None, metadata: Mapping[str, Any] | None = None) -> None:
        self._tensors = dict(tensors)
        self._file = file
        self._metadata = dict(metadata or {})

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

    def file(self, key: str) -> Path | None:
        return self._file

    def metadata(self) -> dict[str, Any]:
        return dict(self._metadata)


class UnionSource(TensorSource):
    """Several sources as one: the shards of a checkpoint.

    Raises:
        CheckpointError: Two shards hold one key.
    """

    def __init__(self, parts: Sequence[TensorSource], *, name: str = "", metadata: Mapping[str, Any] | None = None) -> None:
        self.parts = list(parts)
        self._metadata = dict(metadata or {})
        self._owner: dict[str, TensorSource] = {}
        twice: list[str] = []
        for part in self.parts:
            for key in part:
                if key in self._owner:
                    twice.append(f"{key!r}: in {_name(self._owner[key].file(key))} and in {_name(part.file(key))}")
                self._owner.setdefault(key, part)
        if twice:
            more = [f"... and {len(twice) - 8} more"] if len(twice) > 8 else []
            raise CheckpointError(
                f"checkpoint {name!r}: {len(twice)} tensors are in two shards",
                tried=twice[:8] + more,
                fix="keep the shards of one save only (old shards left in the folder?)",
                duplicates=twice,
            )

    def keys(self) -> list[str]:
        return list(self._owner)

    def __contains__(self, key: object) -> bool:
        return key in self._owner

    def shape(self, key: str) -> tuple[int, ...]:
        return self._owner[key].shape(key)

    def dtype(self, key: str) -> torch.dtype:
        return self._owner[key].dtype(key)

    def get(self, key: str) -> torch.Tensor:
        return self._owner[key].get(key)

    def file(self, key: str) -> Path | None:
        return self._owner[key].file(key)

    def keep(self, key: str) -> None:
        self._owner[key].keep(key)

    def release(self, key: str) -> None:
        self._owner[key].release(key)

    def metadata(self) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for part in reversed(self.parts):
            merged.update(part.metadata())
        return merged | self._metadata

    def close(self) -> None:
        for part in self.parts:
            part.close()


def _name(path: Path | None) -> str:
    return path.name if path else "memory"
