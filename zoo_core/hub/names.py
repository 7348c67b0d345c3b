"""Names that come from outside (repositories, indexes, archives, catalogues) and the paths that may be made of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from zoo_core.errors import UnsafePathError

_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(?:\..*)?\Z", re.IGNORECASE)


def safe_relative(name: str, *, what: str = "file name") -> PurePosixPath:
    """Check a relative name from outside; pure text, touches no disk.

    Refused: absolute names, drive letters, ``..``, empty parts, backslashes, control characters and NUL, names that Windows reserves, parts that end
    in a dot or space, over-long names.

    >>> str(safe_relative("transformer/model.safetensors"))
    'transformer/model.safetensors'
    """
    reason = _reason(name)
    if reason:
        raise UnsafePathError(f"{what} {name!r} is not safe: {reason}", fix="report it to whoever publishes it; nothing was written", name=name)
    return PurePosixPath(name)


def safe_join(root: Path, name: str, *, what: str = "file name") -> Path:
    """``root / name`` after :func:`safe_relative`."""
    return root.joinpath(*safe_relative(name, what=what).parts)


def _reason(name: str) -> str:
    if not isinstance(name, str) or not name:
        return "it is empty"
    if len(name.encode("utf-8", "surrogatepass")) > 1024:
        return "it is longer than 1024 bytes"
    if any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) < 0xE000 for char in name):
        return "it has a control character"
    if name.startswith(("/", "~")) or "\\" in name or ":" in name:
        return "it is absolute or has a drive letter, backslash, colon or '~'"
    for part in name.split("/"):
        if part in ("", ".", ".."):
            return f"it has the part {part!r}"
        if len(part.encode()) > 255:
            return "one part is longer than 255 bytes"
        if part.endswith((".", " ")):
            return "a part ends in a dot or space"
        if _RESERVED.match(part):
            return f"{part!r} is a reserved name on Windows"
        if any(char in '<>"|?*' for char in part):
            return "it has a character that Windows forbids"
    return ""


@dataclass(frozen=True, slots=True)
class SourceRef:
    """Where weights come from.

    Attributes:
        kind: ``embedded``, ``local``, ``hf``, ``pypi``, ``pack`` or ``random``.
        name: Path inside the plugin's package, local path, ``org/repo``, or distribution name.
        revision: Commit, branch or tag of the repository; version of the distribution.
        sub: Folder or file inside the repository or wheel ("" for all of it).
    """

    kind: str
    name: str
    revision: str | None = None
    sub: str = ""

    def __str__(self) -> str:
        if self.kind == "hf":
            return f"hf://{self.name}" + (f"@{self.revision}" if self.revision else "") + (f"/{self.sub}" if self.sub else "")
        if self.kind == "pypi":
            return f"pypi://{self.name}=={self.revision}" + (f"/{self.sub}" if self.sub else "")
        return {"embedded": f"embedded:{self.name}", "random": "random"}.get(self.kind, self.name)


_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_DIST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


def parse_source(text: str) -> SourceRef:
    """Read ``embedded:data/x.safetensors``, ``hf://org/repo[@revision][/sub]``, ``pypi://dist==version/path``, ``random`` or a local path.

    A revision that has a slash (``refs/pr/1``) is written with ``%2F``.

    Raises:
        UnsafePathError: A part would leave its folder or is not a valid name.

    >>> parse_source("hf://org/repo@main/vae")
    SourceRef(kind='hf', name='org/repo', revision='main', sub='vae')
    """
    if text == "random":
        return SourceRef("random", "random")
    if text.startswith("embedded:"):
        return SourceRef("embedded", str(safe_relative(text.removeprefix("embedded:").strip("/"), what="embedded file")))
    if text.startswith("hf://"):
        parts = text.removeprefix("hf://").rstrip("/").split("/")
        if len(parts) < 2:
            raise _bad_source(text)
        last, _, revision = parts[1].partition("@")
        repo, revision = f"{parts[0]}/{last}", revision.replace("%2F", "/").replace("%2f", "/")
        if not _REPO.fullmatch(repo) or ".." in repo or "--" in repo or (revision and not all(_REVISION.fullmatch(part) for part in revision.split("/"))):
            raise _bad_source(text)
        sub = "/".join(parts[2:])
        return SourceRef("hf", repo, revision or None, str(safe_relative(sub)) if sub else "")
    if text.startswith("pypi://"):
        requirement, _, sub = text.removeprefix("pypi://").partition("/")
        name, _, version = requirement.partition("==")
        if not _DIST.fullmatch(name) or not _REVISION.fullmatch(version):
            raise _bad_source(text)
        return SourceRef("pypi", name, version, str(safe_relative(sub.strip("/"))) if sub.strip("/") else "")
    if "\0" in text or re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise _bad_source(text)
    return SourceRef("pack" if text.endswith(".zoo") else "local", text)


def _bad_source(text: str) -> UnsafePathError:
    return UnsafePathError(
        f"weights source {text!r} is not valid", fix="embedded:PATH, hf://org/repo[@revision][/folder], pypi://dist==version/PATH, a local path or 'random'"
    )
