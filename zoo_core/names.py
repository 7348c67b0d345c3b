"""Names that users write: ``name[@variant][#revision]``, ``hf://org/repo[@revision]``, a local path or a ``.zoo`` bundle; and near misses.

Pure text: nothing here touches the disk.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from zoo_core.errors import NameSyntaxError

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
    from zoo_core.hub.names import parse_source

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
