"""Looking after the cache: what is in it, is it whole, what can go; and copies of a model for other machines."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo_core.hub.cache import Hasher, atomically, disk_errors, free_bytes, no_space, quarantine, read_json, remember, sha256_of, zoo_home
from zoo_core.hub.resolve import MANIFEST
from zoo_core.interfaces.weights import LoadReport, ResolvedWeights
from zoo_core.names import safe_join


@dataclass(slots=True)
class CacheItem:
    """One thing that can be listed and removed.

    Attributes:
        kind: ``hub`` (a repository at one commit), ``pypi``, ``pack``, ``partial`` (a download that can go on) or ``quarantine``.
        name: ``org/repo``, distribution, model, or file.
        version: Commit or version.
        size: Bytes on disk.
        used: Time of the last access, in seconds since 1970.
        in_use: A running process has one of its files open or mapped (Linux).
    """

    kind: str
    name: str
    version: str
    path: Path
    size: int
    files: list[Path] = field(default_factory=list)
    used: float = 0.0
    in_use: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "version": self.version,
            "path": str(self.path),
            "bytes": self.size,
            "files": len(self.files),
            "used": self.used,
            "in_use": self.in_use,
        }


def list_cache() -> list[CacheItem]:
    """Everything in the cache folder, the biggest first."""
    home = zoo_home()
    items = [*_repositories(home / "hub")]
    for folder in _folders(home / "pypi"):
        name, _, version = folder.name.rpartition("-")
        items.append(_item("pypi", name, version, folder, _files(folder)))
    for folder in _folders(home / "packs"):
        name, _, version = folder.name.rpartition("-")
        items.append(_item("pack", name, version, folder, _files(folder)))
    items += [
        _item("partial", path.parts[-3].removeprefix("models--").replace("--", "/"), path.stem[:12], path, [path])
        for path in _glob(home / "hub", "*/blobs/*.partial")
    ]
    items += [_item("quarantine", path.name, "", path, [path]) for path in _glob(home / "quarantine", "*") if not path.name.endswith(".why.txt")]
    busy = files_in_use(home)
    for item in items:
        item.in_use = any(_identity(path) in busy for path in item.files)
    return sorted(items, key=lambda item: -item.size)


def verify_cache(names: Iterable[str] = (), *, repair: bool = False) -> Iterator[tuple[Path, str, str]]:
    """Hash every weights file again: yields (path, ``ok`` | ``damaged`` | ``unknown``, detail).

    Args:
        names: Only items with these names.
        repair: Move damaged files to quarantine; the next load fetches them again.
    """
    wanted = set(names)
    for item in list_cache():
        if item.kind not in ("hub", "pypi", "pack") or (wanted and item.name not in wanted):
            continue
        trust = (read_json(zoo_home() / "trust" / f"{item.name.replace('/', '--')}.json") or {}).get("files", {}).get(item.version, {})
        for path in item.files:
            relative = path.relative_to(item.path).as_posix()
            blob = path.resolve().name if item.kind == "hub" else ""
            known = trust.get(relative, {}).get("sha256") or (blob if len(blob) == 64 else None)
            if known is None:
                with contextlib.suppress(OSError):
                    known = sha256_of(path)[0] if sha256_of(path)[1] == "remembered" else None
            hasher = Hasher(path.stat().st_size).read(path)
            actual = hasher.sha256.hexdigest()
            if known is None and len(blob) == 40 and hasher.git is not None:
                known, actual = blob, hasher.git.hexdigest()
            if known is None:
                yield path, "unknown", f"sha256 {actual}; nothing to compare with"
            elif known == actual:
                yield path, "ok", actual
            else:
                detail = f"expected {known}, got {actual}"
                if repair:
                    detail += f"; moved to {quarantine(path, detail)}"
                yield path, "damaged", detail


def prune(
    *, names: Iterable[str] = (), unused_days: float | None = None, everything: bool = False, dry_run: bool = False, force: bool = False
) -> list[tuple[CacheItem, str]]:
    """Remove what is not needed; returns (item, ``removed`` | ``would remove`` | ``in use``).

    Without arguments: quarantined files, partial downloads older than a day and blobs that no snapshot uses.  Files are renamed before they are deleted,
    so a process that opens one at this moment finds it whole or not at all; one that has it mapped keeps it.

    Args:
        names: Also remove these items (``org/repo``, a distribution, a packed model).
        unused_days: Also remove what was not read for so many days.
        everything: Remove all.
        dry_run: Only say what would go.
        force: Remove files in use too.
    """
    wanted, now = set(names), time.time()
    results: list[tuple[CacheItem, str]] = []
    for item in list_cache():
        stale = unused_days is not None and item.used < now - unused_days * 86400
        leftover = item.kind == "quarantine" or (item.kind == "partial" and item.used < now - 86400)
        if not (everything or stale or leftover or item.name in wanted):
            continue
        if item.in_use and not force:
            results.append((item, "in use"))
            continue
        if not dry_run:
            _discard(item.path)
            if item.kind == "quarantine":
                item.path.with_name(item.path.name + ".why.txt").unlink(missing_ok=True)
        results.append((item, "would remove" if dry_run else "removed"))
    if not dry_run:
        _drop_orphans(zoo_home() / "hub")
    return results


def files_in_use(root: Path) -> set[tuple[int, int]]:
    """(device, inode) of the files below ``root`` that some process has mapped or open; empty where that cannot be seen."""
    found: set[tuple[int, int]] = set()
    prefix = str(root.resolve()) + os.sep
    for process in _glob(Path("/proc"), "[0-9]*"):
        with contextlib.suppress(OSError):
            for line in (process / "maps").read_text(errors="replace").splitlines():
                parts = line.split(maxsplit=5)
                if len(parts) == 6 and parts[5].startswith(prefix):
                    with contextlib.suppress(OSError):
                        found.add(_identity(Path(parts[5])))
        with contextlib.suppress(OSError):
            for link in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(link).startswith(prefix):
                        found.add(_identity(link))
    return found


def copy_to(found: ResolvedWeights, folder: Path, *, model: str, report: LoadReport, card: dict[str, Any]) -> list[Path]:
    """Copy a model's files to ``folder`` in their published form, with a manifest of digests that a later load from there checks.

    Raises:
        NoSpaceError, CacheAccessError: From the disk.
    """
    needed = sum(path.stat().st_size for path in found.files.values())
    if needed > free_bytes(folder):
        raise no_space(folder, needed)
    entries, copies = [], []
    for name, path in sorted(found.files.items()):
        target = safe_join(folder, name)
        with disk_errors(target, needed):
            target.parent.mkdir(parents=True, exist_ok=True)
        hasher = Hasher()

        def write(temporary: Path, path: Path = path, hasher: Hasher = hasher) -> None:
            with path.open("rb") as source, temporary.open("xb") as out:
                while data := source.read(1 << 20):
                    hasher.update(data)
                    out.write(data)

        atomically(target, write)
        digest = hasher.sha256.hexdigest()
        remember(target, digest)
        entries.append({"path": name, "size": hasher.count, "sha256": digest})
        copies.append(target)
    sources = sorted({record.source for record in report.files if record.source})
    manifest = {"schema": 1, "model": model, "layout": found.layout, "sources": sources, "licence": card.get("licence", {}), "files": entries}
    atomically(folder / MANIFEST, lambda temporary: temporary.write_text(json.dumps(manifest, indent=1, default=str)))
    return [*copies, folder / MANIFEST]


def _repositories(root: Path) -> Iterator[CacheItem]:
    for folder in _folders(root):
        for snapshot in _folders(folder / "snapshots"):
            yield _item("hub", folder.name.removeprefix("models--").replace("--", "/"), snapshot.name, snapshot, _files(snapshot))


def _drop_orphans(root: Path) -> None:
    """Blobs that no snapshot links to any more."""
    for folder in _folders(root):
        used = {os.path.realpath(path) for path in _glob(folder / "snapshots", "**/*")}
        for blob in _glob(folder / "blobs", "*"):
            if blob.suffix != ".partial" and os.path.realpath(blob) not in used:
                _discard(blob)
        if not _folders(folder / "snapshots") and not _glob(folder / "blobs", "*"):
            _discard(folder)


def _discard(path: Path) -> None:
    """Rename first, then delete."""
    gone = path.with_name(f".gone-{secrets.token_hex(4)}")
    with disk_errors(path), contextlib.suppress(FileNotFoundError):
        os.replace(path, gone)
        if gone.is_dir() and not gone.is_symlink():
            shutil.rmtree(gone, ignore_errors=True)
        else:
            gone.unlink()


def _item(kind: str, name: str, version: str, path: Path, files: list[Path]) -> CacheItem:
    sizes, used = 0, 0.0
    for file in files:
        with contextlib.suppress(OSError):
            info = file.stat()
            sizes, used = sizes + info.st_size, max(used, info.st_atime, info.st_mtime)
    return CacheItem(kind, name, version, path, sizes, files, used)


def _identity(path: Path) -> tuple[int, int]:
    try:
        info = path.stat()
        return info.st_dev, info.st_ino
    except OSError:
        return -1, int(hashlib.sha256(os.fsencode(path)).hexdigest()[:12], 16)


def _folders(root: Path) -> list[Path]:
    return [path for path in _glob(root, "*") if path.is_dir() and not path.name.startswith(".")]


def _files(folder: Path) -> list[Path]:
    return [path for path in _glob(folder, "**/*") if path.is_file()]


def _glob(root: Path, pattern: str) -> list[Path]:
    try:
        return sorted(root.glob(pattern))
    except OSError:
        return []
