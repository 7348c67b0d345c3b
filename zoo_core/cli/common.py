"""Plain tables, numbers with units, colours only where they are wanted, files written whole."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any


def colour() -> bool:
    """Whether to colour: a terminal, and neither ``NO_COLOR`` nor ``TERM=dumb``."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def style(text: str, code: str) -> str:
    """``text`` in an ANSI style (``"1"`` bold, ``"2"`` faint, ``"31"`` red, ``"32"`` green, ``"33"`` yellow), or plain."""
    return f"\x1b[{code}m{text}\x1b[0m" if colour() else text


def width() -> int:
    """Columns of the terminal; a large number when the output is not one."""
    if not sys.stdout.isatty():
        return 10_000
    from shutil import get_terminal_size

    return get_terminal_size().columns


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Print aligned columns; the last is cut to the terminal.  ``right`` lists the indices of right-aligned ones."""
    sizes = [max([len(title), *(len(row[i]) for row in rows)]) for i, title in enumerate(columns)]
    limit = width()

    def line(cells: Sequence[str]) -> str:
        parts = [cell.rjust(sizes[i]) if i in right else cell.ljust(sizes[i]) for i, cell in enumerate(cells)]
        text = "  ".join(parts).rstrip()
        return text if len(text) <= limit else text[: limit - 1] + "…"

    print(style(line(columns), "1"))
    for row in rows:
        print(line(row))


def print_json(data: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(data, indent=1, ensure_ascii=False, default=str))


def number(value: float | None) -> str:
    """``1604462752`` -> ``1.60B``.

    >>> number(323356460), number(None)
    ('323M', '-')
    """
    if not value:
        return "-"
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def size(value: float | None) -> str:
    """Bytes in decimal units.

    >>> size(1293425840)
    '1.29 GB'
    """
    if not value:
        return "-"
    for unit, label in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{value / unit:.3g} {label}"
    return f"{value:.0f} B"


def write_atomically(path: str | os.PathLike[str], write: Callable[[str], object]) -> None:
    """Call ``write(temporary path)`` and rename; an interruption leaves no half-written file.  The temporary name keeps the suffix."""
    from zoo_core.errors import InputError

    target = os.fspath(path)
    folder, name = os.path.split(os.path.abspath(target))
    stem, suffix = os.path.splitext(name)
    temporary = os.path.join(folder, f".{stem}.{os.getpid()}.tmp{suffix}")
    try:
        os.makedirs(folder, exist_ok=True)
        write(temporary)
        os.replace(temporary, target)
    except BaseException as error:
        if os.path.exists(temporary):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise InputError(f"cannot write {target!r}: {error.strerror or error}", fix="give another --output") from error
        raise
