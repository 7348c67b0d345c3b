"""Names that come from outside (repositories, indexes, archives, catalogues) and the paths that may be made of them."""

from __future__ import annotations

import re
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
