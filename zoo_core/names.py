"""Names that users write: ``name[@variant][#revision]``, ``hf://org/repo[@revision]``, a local path or a ``.zoo`` bundle; near misses;
and names that come from outside (repositories, indexes, archives, catalogues) with the paths that may be made of them.

Pure text: nothing here touches the disk.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from zoo_core.errors import NameSyntaxError, UnsafePathError

FORM = "name[@variant][#revision], hf://org/repo[@revision], a folder such as ./weights, or a bundle.zoo"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,94}[a-z0-9])?\Z")
_VARIANT = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\Z")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}(?:/[A-Za-z0-9][A-Za-z0-9._+-]{0,127}){0,7}\Z")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?\Z")


@dataclass(frozen=True, slots=True)
class Reference:
    """What a user asked for.

    Attributes:
        kind: ``"name"``, ``"hf"``, ``"path"`` or ``"bundle"``.
        name: Model name, ``org/repo``, or the path.
        variant: Part of the entry to replace, or None.
        revision: Commit, branch or tag, or None.
    """

    kind: str
    name: str
    variant: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        if self.kind == "hf":
            return f"hf://{self.name}" + (f"@{self.revision}" if self.revision else "")
        if self.kind != "name":
            return f"local:{self.name}"
        return self.name + (f"@{self.variant}" if self.variant else "") + (f"#{self.revision}" if self.revision else "")


def parse(text: str) -> Reference:
    """Read what a user wrote.

    Text counts as a path when it starts with ``local:``, ``/``, ``./``, ``../``, ``~`` or a drive letter, or ends in ``.zoo``; a bare word never does.

    Raises:
        NameSyntaxError: It is none of the forms, or not safe (control characters, ``..`` in a name, reserved names).

    >>> parse("sana-0.6b@bf16#main")
    Reference(kind='name', name='sana-0.6b', variant='bf16', revision='main')
    """
    if not isinstance(text, str) or not text.strip():
        raise NameSyntaxError("a model name is empty", fix=f"give {FORM}")
    if len(text) > 4096 or any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) < 0xE000 for char in text):
        raise NameSyntaxError(f"model name {text[:60]!r} is too long or has control characters", fix=f"give {FORM}")
    if text.startswith("hf://"):
        return _hf(text)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise NameSyntaxError(f"model name {text!r} has a scheme the zoo does not know", fix=f"give {FORM}")
    path = text.removeprefix("local:")
    if text.startswith(("local:", "/", "./", "../", "~", "\\")) or text in (".", "..") or re.match(r"[A-Za-z]:[\\/]", text) or text.endswith(".zoo"):
        if not path:
            raise NameSyntaxError("'local:' is followed by no path", fix=f"give {FORM}")
        return Reference("bundle" if path.endswith(".zoo") else "path", path)
    rest, hash_mark, revision = text.partition("#")
    name, at, variant = rest.partition("@")
    if not _NAME.match(name) or ".." in name or _RESERVED.match(name):
        raise NameSyntaxError(f"{name!r} is not a model name", tried=_hints(name), fix=f"give {FORM}")
    if at and (not _VARIANT.match(variant) or ".." in variant):
        raise NameSyntaxError(f"variant {variant!r} of {name!r} is not a name", fix="write it in lower case: name@variant")
    if hash_mark and (not _REVISION.match(revision) or ".." in revision):
        raise NameSyntaxError(f"revision {revision!r} of {name!r} is not a commit, branch or tag", fix="write name#main or name#<commit>")
    return Reference("name", name, variant or None, revision or None)


def _hints(name: str) -> list[str]:
    if name.lower() != name:
        return [f"names are written in lower case: {name.lower()}"]
    if "/" in name:
        return [f"a folder is written ./{name} or local:{name}", f"a repository is written hf://{name}"]
    return []


def _hf(text: str) -> Reference:
    from zoo_core.errors import UnsafePathError

    try:
        ref = parse_source(text)
    except UnsafePathError as error:
        raise NameSyntaxError(error.what, fix="write hf://org/repo or hf://org/repo@revision") from None
    return Reference("hf", ref.name + (f"/{ref.sub}" if ref.sub else ""), None, ref.revision)


def near_misses(name: str, known: Iterable[str], limit: int = 5) -> list[str]:
    """The names a user may have meant, best first, at most ``limit``.

    >>> near_misses("sanna-emoji", ["sana-emoji", "dc-ae-emoji", "hart"])
    ['sana-emoji', 'dc-ae-emoji']
    """
    from difflib import get_close_matches

    pool = sorted(set(known))
    word = name.lower().replace("_", "-")
    found = get_close_matches(word, pool, n=limit, cutoff=0.6)
    if len(word) >= 3:
        found += [item for item in pool if item not in found and (word in item or item in word)]
    return found[:limit]


# -- names and paths from outside --------------------------------------------------------------------------------------------


_RESERVED_FILE = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(?:\..*)?\Z", re.IGNORECASE)


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
        if _RESERVED_FILE.match(part):
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
_REVISION_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
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
        if not _REPO.fullmatch(repo) or ".." in repo or "--" in repo or (revision and not all(_REVISION_PART.fullmatch(part) for part in revision.split("/"))):
            raise _bad_source(text)
        sub = "/".join(parts[2:])
        return SourceRef("hf", repo, revision or None, str(safe_relative(sub)) if sub else "")
    if text.startswith("pypi://"):
        requirement, _, sub = text.removeprefix("pypi://").partition("/")
        name, _, version = requirement.partition("==")
        if not _DIST.fullmatch(name) or not _REVISION_PART.fullmatch(version):
            raise _bad_source(text)
        return SourceRef("pypi", name, version, str(safe_relative(sub.strip("/"))) if sub.strip("/") else "")
    if "\0" in text or re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise _bad_source(text)
    return SourceRef("pack" if text.endswith(".zoo") else "local", text)


def _bad_source(text: str) -> UnsafePathError:
    return UnsafePathError(
        f"weights source {text!r} is not valid", fix="embedded:PATH, hf://org/repo[@revision][/folder], pypi://dist==version/PATH, a local path or 'random'"
    )
