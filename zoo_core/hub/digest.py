"""Digests: computing, remembering and trusting them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo_core.errors import CacheAccessError, NoSpaceError
from zoo_core.hub.cache import atomically, read_json, zoo_home

_CHUNK = 1 << 20
_session: dict[str, tuple[list[Any], str]] = {}


class Hasher:
    """SHA-256, and git's SHA-1 of a blob when the size is known beforehand."""

    def __init__(self, size: int | None = None) -> None:
        self.sha256 = hashlib.sha256()
        self.git = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False) if size is not None else None
        self.count = 0

    def update(self, data: bytes) -> None:
        self.sha256.update(data)
        if self.git is not None:
            self.git.update(data)
        self.count += len(data)

    def read(self, path: Path, advance: Callable[[int], None] | None = None) -> Hasher:
        """Add a file's content."""
        with path.open("rb", buffering=0) as file:
            while data := file.read(_CHUNK):
                self.update(data)
                if advance is not None:
                    advance(len(data))
        return self


def sha256_of(path: Path, *, fresh: bool = False) -> tuple[str, str]:
    """SHA-256 of a file and how it was known: ``"remembered"`` or ``"hashed"``.

    A digest is remembered under (path, size, modification time in ns, inode); any change of these means hashing again.
    """
    real = path.resolve()
    key = _identity(real)
    record = _session.get(str(real))
    if not fresh:
        stored = record or _load(real)
        if stored is not None and stored[0] == key:
            return stored[1], "remembered"
    digest = Hasher().read(real).sha256.hexdigest()
    remember(real, digest)
    return digest, "hashed"


def remember(path: Path, digest: str) -> None:
    """Remember the digest of a file as it is now; a cache that cannot be written is remembered for this process only."""
    real = path.resolve()
    key = _identity(real)
    _session[str(real)] = (key, digest)
    target = _verdict_file(real)
    with contextlib.suppress(OSError, CacheAccessError, NoSpaceError):
        target.parent.mkdir(parents=True, exist_ok=True)
        atomically(target, lambda temporary: temporary.write_text(json.dumps({"path": str(real), "key": key, "sha256": digest})))


def _identity(path: Path) -> list[Any]:
    info = path.stat()
    return [info.st_size, info.st_mtime_ns, info.st_ino]


def _verdict_file(path: Path) -> Path:
    return zoo_home() / "verdicts" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:40]}.json"


def _load(path: Path) -> tuple[list[Any], str] | None:
    record = read_json(_verdict_file(path))
    if isinstance(record, dict) and record.get("path") == str(path) and isinstance(record.get("sha256"), str):
        return record["key"], record["sha256"]
    return None


class TrustFile:
    """Trust on first use: what this machine saw when it first fetched an unpinned file of a repository.

    Later loads use the same commit and demand the same digest, so an unpinned name does not change under a program; ``zoo pull --update`` renews it.
    """

    def __init__(self, repo: str) -> None:
        self.path = zoo_home() / "trust" / f"{repo.replace('/', '--')}.json"
        content = read_json(self.path)
        self.data: dict[str, Any] = content if isinstance(content, dict) else {}

    def commit(self, revision: str) -> str | None:
        value = self.data.get("revisions", {}).get(revision)
        return value if isinstance(value, str) else None

    def file(self, commit: str, name: str) -> dict[str, Any] | None:
        value = self.data.get("files", {}).get(commit, {}).get(name)
        return value if isinstance(value, dict) else None

    def listing(self, commit: str) -> list[str] | None:
        """All file names of the repository at this commit, when the hub was asked."""
        value = self.data.get("listings", {}).get(commit)
        return [str(name) for name in value] if isinstance(value, list) else None

    def record(self, commit: str, files: dict[str, dict[str, Any]], revision: str | None = None, listing: list[str] | None = None) -> None:
        """Add what was seen; what stands there already is kept."""
        content = read_json(self.path)  # another process may have added to it
        self.data = content if isinstance(content, dict) else self.data
        known = self.data.setdefault("files", {}).setdefault(commit, {})
        for name, entry in files.items():
            known.setdefault(name, entry | {"first_seen": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
        if listing is not None:
            self.data.setdefault("listings", {})[commit] = sorted(listing)
        if revision is not None:
            self.data.setdefault("revisions", {})[revision] = commit
        with contextlib.suppress(OSError, CacheAccessError, NoSpaceError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            atomically(self.path, lambda temporary: temporary.write_text(json.dumps(self.data, indent=1, sort_keys=True)))
