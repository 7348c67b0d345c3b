"""How downloads tell what they do: a bar for people, JSON lines for programs, a function for callers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

ProgressOption = Literal["bar", "json", "none"] | bool | Callable[[dict[str, Any]], None] | None


class Progress:
    """Takes events (``start``, ``progress``, ``retry``, ``wait``, ``verify``, ``done``) and shows them; use it as a context manager.

    Args:
        option: ``"bar"``/True: rich bar on stderr; ``"json"``: one JSON object per line on stderr; a function: called with each event;
            None: a bar when stderr is a terminal; ``"none"``/False: silent.
    """

    def __init__(self, option: ProgressOption = None) -> None:
        if option is None:
            option = "bar" if sys.stderr is not None and sys.stderr.isatty() else "none"
        self._option = {True: "bar", False: "none"}.get(option, option) if isinstance(option, bool) else option
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        self._done: dict[str, int] = {}
        self._shown: dict[str, float] = {}
        self._begin = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start(self, file: str, total: int | None, already: int = 0) -> None:
        self._done[file] = already
        self._emit("start", file, bytes=already, total=total)
        if self._option == "bar":
            if self._bar is None:
                from rich.console import Console
                from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
                from rich.progress import Progress as RichProgress

                columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
                self._bar = RichProgress(*columns, console=Console(stderr=True), transient=False)
                self._bar.start()
            if file in self._tasks:
                self._bar.update(self._tasks[file], completed=already, total=total)
            else:
                self._tasks[file] = self._bar.add_task(file.rsplit("/", 1)[-1], total=total, completed=already)

    def advance(self, file: str, count: int, total: int | None = None) -> None:
        self._done[file] = self._done.get(file, 0) + count
        if self._bar is not None and file in self._tasks:
            self._bar.update(self._tasks[file], advance=count)
        now = time.monotonic()
        if now - self._shown.get(file, 0) > 0.2 and self._option not in ("bar", "none"):
            self._shown[file] = now
            self._emit("progress", file, bytes=self._done[file], total=total)

    def note(self, event: str, file: str, **fields: Any) -> None:
        """Any other event; on the bar it becomes a line above it."""
        self._emit(event, file, **fields)
        if self._bar is not None and fields.get("text"):
            self._bar.console.print(f"{file}: {fields['text']}", highlight=False, markup=False)

    def done(self, file: str, size: int) -> None:
        self._emit("done", file, bytes=size, total=size)
        if self._bar is not None and file in self._tasks:
            self._bar.update(self._tasks[file], completed=size, total=size)

    def _emit(self, event: str, file: str, **fields: Any) -> None:
        record = {"event": event, "file": file, **fields, "seconds": round(time.monotonic() - self._begin, 3)}
        if callable(self._option):
            self._option(record)
        elif self._option == "json":
            print(json.dumps(record), file=sys.stderr, flush=True)
