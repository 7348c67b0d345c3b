"""``zoo pack``: one file that carries a model's weights, digests and licence to a machine without network."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo_core.errors import CheckpointError, ChecksumError, UnsafeFileError, UnsafePathError
from zoo_core.hub.cache import Hasher, atomically, disk_errors, free_bytes, locked, no_space, remember, sha256_of, zoo_home
from zoo_core.names import safe_join, safe_relative

MANIFEST = "zoo-pack.json"
SCHEMA = 1


def write_pack(
    path: Path, *, model: str, files: Mapping[str, Path], layout: str = "", source: str = "", licence: Mapping[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """Write a bundle (a plain, uncompressed zip archive) and return its manifest.

    Args:
        path: ``something.zoo``.
        model: The name that :func:`zoo.load` shall use.
        files: Published relative name -> file.
        licence: The catalogue's licence entry; licence texts that lie among the files or beside them go along.
        more: Further fields of the manifest (revision, card...).

    Raises:
        NoSpaceError, CacheAccessError: From the disk; nothing is left behind.
    """
    path = Path(path)
    needed = sum(file.stat().st_size for file in files.values())
    if needed > free_bytes(path.parent):
        raise no_space(path.parent, needed)
    entries = [{"path": str(safe_relative(name)), "size": file.stat().st_size, "sha256": sha256_of(file)[0]} for name, file in sorted(files.items())]
    texts = {name: file for name, file in _licence_texts(files).items() if name not in files}
    manifest = {
        "schema": SCHEMA,
        "model": model,
        "layout": layout,
        "source": source,
        "licence": dict(licence or {}),
        "licence_texts": sorted(texts),
        "files": entries,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **more,
    }

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "x", zipfile.ZIP_STORED, allowZip64=True) as archive:
            archive.writestr(MANIFEST, json.dumps(manifest, indent=1, default=str))
            if licence:
                archive.writestr("LICENCE.txt", "".join(f"{key}: {value}\n" for key, value in licence.items()))
            for name, file in {**{f"licences/{name}": file for name, file in texts.items()}, **{f"files/{name}": file for name, file in files.items()}}.items():
                archive.write(file, name)

    path.parent.mkdir(parents=True, exist_ok=True)
    atomically(path, write)
    return manifest


def read_pack(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a bundle, checked.

    Raises:
        CheckpointError: Not a bundle, or damaged.
        UnsafePathError: A file name in it would leave its folder.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(MANIFEST).file_size > 50_000_000:
                raise ValueError("manifest too large")
            manifest = json.loads(archive.read(MANIFEST))
        if not isinstance(manifest, dict) or not isinstance(manifest.get("model"), str) or not isinstance(manifest.get("files"), list):
            raise ValueError("model or files are missing in the manifest")
        for entry in manifest["files"]:
            safe_relative(entry["path"])
            if not isinstance(entry["size"], int) or not isinstance(entry["sha256"], str) or entry["size"] < 0:
                raise ValueError(f"entry {entry['path']!r} lacks size or digest")
    except UnsafePathError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"bundle {str(path)!r} does not exist", fix="check the path") from error
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, TypeError) as error:
        raise CheckpointError(f"{str(path)!r} is not a bundle of `zoo pack`, or is damaged: {error}", fix="make it again: zoo pack NAME") from error
    if manifest.get("schema", 0) > SCHEMA:
        raise CheckpointError(f"bundle {str(path)!r} has schema {manifest['schema']}, this zoo knows {SCHEMA}", fix="pip install --upgrade zoo-core")
    return manifest


def unpack(path: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """Extract a bundle into the cache (once) and verify every file; returns (folder, manifest).

    Raises:
        ChecksumError: A file is not what the manifest says; nothing is left behind.
        UnsafeFileError, CheckpointError, NoSpaceError: See :func:`read_pack`.
    """
    path = Path(path)
    manifest = read_pack(path)
    name = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:24]
    folder = zoo_home() / "packs" / f"{safe_relative(manifest['model'].replace('/', '--').replace('@', '-'))!s}-{name}"
    if folder.is_dir():
        return folder, manifest
    with locked(folder.with_name(folder.name + ".lock")):
        if folder.is_dir():
            return folder, manifest
        needed = sum(entry["size"] for entry in manifest["files"])
        if needed > free_bytes(folder):
            raise no_space(folder, needed)
        with disk_errors(folder, needed):
            folder.parent.mkdir(parents=True, exist_ok=True)
            scratch = folder.with_name(f".pack-{secrets.token_hex(8)}")
            scratch.mkdir()
            try:
                with zipfile.ZipFile(path) as archive:
                    for entry in manifest["files"]:
                        _extract(archive, entry, safe_join(scratch, entry["path"]), path)
                os.replace(scratch, folder)
            except KeyError as error:
                raise CheckpointError(f"bundle {str(path)!r} lacks a file of its manifest: {error}", fix="make it again: zoo pack NAME") from error
            except zipfile.BadZipFile as error:
                raise CheckpointError(f"bundle {str(path)!r} is damaged: {error}", fix="copy it again") from error
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        for entry in manifest["files"]:
            remember(safe_join(folder, entry["path"]), entry["sha256"])
    return folder, manifest


def _extract(archive: zipfile.ZipFile, entry: Mapping[str, Any], target: Path, bundle: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    hasher, limit = Hasher(), int(entry["size"])
    with archive.open(f"files/{entry['path']}") as source, target.open("xb") as out:
        while data := source.read(1 << 20):
            hasher.update(data)
            if hasher.count > limit:
                raise UnsafeFileError(f"{entry['path']!r} in {bundle.name} is larger than its manifest says", fix="do not use this bundle")
            out.write(data)
        out.flush()
        os.fsync(out.fileno())
    if hasher.sha256.hexdigest() != entry["sha256"]:
        raise ChecksumError(
            f"{entry['path']!r} in bundle {bundle.name} is damaged",
            tried=[f"expected {entry['sha256']}", f"got      {hasher.sha256.hexdigest()}"],
            fix="copy the bundle again",
            expected=entry["sha256"],
            actual=hasher.sha256.hexdigest(),
        )


def _licence_texts(files: Mapping[str, Path]) -> dict[str, Path]:
    """Licence files in the folders where the weights lie."""
    found: dict[str, Path] = {}
    for folder in {file.parent for file in files.values()}:
        for item in folder.iterdir():
            if item.is_file() and item.name.upper().startswith(("LICENSE", "LICENCE", "NOTICE", "COPYING")) and item.stat().st_size < 1_000_000:
                found.setdefault(item.name, item)
    return found
