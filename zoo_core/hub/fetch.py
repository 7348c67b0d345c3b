"""One file over HTTP: resumable after the process died, hashed while it is written, never under its final name before it is right.

The huggingface_hub client supplies session, proxies, certificates and credentials; its own download cannot resume after a kill and never hashes.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from zoo_core.checkpoint.filekind import sniff
from zoo_core.errors import ChecksumError, DownloadError
from zoo_core.hub.cache import Hasher, disk_errors, quarantine
from zoo_core.hub.remote import retry_after

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


class ReplacedError(DownloadError):
    """Somebody else finished or replaced the partial file although it was locked: locks do not work on this disk."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to fetch and what is known about it beforehand."""

    url: str
    name: str
    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try: consecutive attempts without a new byte, attempts in all, waits in seconds."""

    idle_attempts: int = 5
    attempts: int = 40
    first_wait: float = 0.5
    longest_wait: float = 60.0
    timeout: float = 20.0
    sleep: Callable[[float], None] = time.sleep


def fetch(wanted: Wanted, partial: Path, *, progress: Progress | None = None, patience: Patience | None = None) -> str:
    """Complete ``partial`` and verify it; returns its SHA-256.  On a mismatch the file is quarantined and fetched once more from the start.

    Raises:
        DownloadError: Refused by the server, or no success within ``patience``; what was received is kept.
        ChecksumError: Twice other content than announced.
        NoSpaceError, CacheAccessError: From the disk; what was received is kept.
    """
    progress, patience = progress or Progress("none"), patience or Patience()
    failures: list[str] = []
    for _ in range(2):
        hasher = _complete(wanted, partial, progress, patience)
        problem = _problem(wanted, partial, hasher)
        if not problem:
            progress.done(wanted.name, hasher.count)
            return hasher.sha256.hexdigest()
        where = quarantine(partial, problem)
        failures.append(f"{problem}; kept as {where}")
        progress.note("retry", wanted.name, text=problem)
    raise ChecksumError(
        f"{wanted.name}: the server sent other content than announced, twice",
        tried=[f"from {wanted.url}", *failures],
        fix="check for a proxy or log-in page in between, and that the catalogue names the right revision",
        expected=wanted.sha256 or wanted.git_sha1,
        actual=hasher.sha256.hexdigest(),
    )


def _problem(wanted: Wanted, file: Path, hasher: Hasher) -> str:
    actual = hasher.sha256.hexdigest()
    kind = sniff(file) if hasher.count else None
    told = (
        f"; it is {kind.text}"
        if kind is not None and kind.name in ("html", "lfs-pointer", "text", "json", "safetensors") and kind.text != "a safetensors file"
        else ""
    )
    if wanted.sha256 and actual != wanted.sha256:
        return f"sha256 expected {wanted.sha256}, got {actual} ({hasher.count} bytes{told})"
    if wanted.size is not None and hasher.count != wanted.size:
        return f"{wanted.size} bytes expected, got {hasher.count} (sha256 {actual}{told})"
    if wanted.git_sha1 and not wanted.sha256 and hasher.git is not None and hasher.git.hexdigest() != wanted.git_sha1:
        return f"git blob expected {wanted.git_sha1}, got {hasher.git.hexdigest()} (sha256 {actual}{told})"
    if (
        not wanted.sha256
        and wanted.name.endswith(WEIGHT_SUFFIXES)
        and kind is not None
        and (kind.damaged or kind.name in ("html", "json", "text", "lfs-pointer"))
    ):
        return f"not weights but {kind.text} (sha256 {actual})"
    return ""


def _complete(wanted: Wanted, partial: Path, progress: Progress, patience: Patience) -> Hasher:
    """Receive until all bytes are there; every attempt starts where the last one ended."""
    from huggingface_hub import get_session

    session: Any = get_session()
    errors = sys.modules[type(session).__mro__[-2].__module__.partition(".")[0]]
    idle, log = 0, []
    with disk_errors(partial, wanted.size):
        partial.parent.mkdir(parents=True, exist_ok=True)
        file = partial.open("r+b") if partial.exists() else partial.open("x+b")
    state = _State(file, partial, wanted, progress)
    with contextlib.closing(state):
        state.catch_up()
        for attempt in range(patience.attempts):
            if state.complete:
                break
            before = state.hasher.count
            wait: float | None = None
            try:
                wait = _receive(session, wanted, state, patience)
                reason = f"the server asked to wait {wait:.0f} s" if wait is not None else "the connection ended early"
            except (errors.TransportError, errors.StreamError) as error:
                reason = f"{type(error).__name__}: {error}"
            except ConnectionError as error:  # the client's own offline mode
                raise DownloadError(f"cannot download {wanted.name}: {error}", tried=[wanted.url], fix="unset HF_HUB_OFFLINE") from error
            except (errors.TooManyRedirects, errors.InvalidURL) as error:
                raise DownloadError(f"cannot download {wanted.name}: {error}", tried=[wanted.url], fix="check HF_ENDPOINT and proxy settings") from error
            if state.complete:
                break
            idle = 0 if state.hasher.count > before else idle + 1
            log.append(f"attempt {attempt + 1}, at byte {state.hasher.count}: {reason}")
            if idle >= patience.idle_attempts:
                break
            pause = min(wait if wait is not None else patience.first_wait * 2**idle, patience.longest_wait)
            progress.note("retry", wanted.name, text=reason, wait=pause)
            patience.sleep(pause)
        state.flush()
        if not state.complete:
            raise DownloadError(
                f"cannot download {wanted.name}: {state.hasher.count} of {state.total if state.total is not None else '?'} bytes after {len(log)} attempts",
                tried=[wanted.url, *log[-5:]],
                fix="run the same command again: it goes on where it stopped",
            )
        return state.hasher


class _State:
    """The growing file, its hash and what is known of its length."""

    def __init__(self, file: Any, path: Path, wanted: Wanted, progress: Progress) -> None:
        self.file, self.path, self.wanted, self.progress = file, path, wanted, progress
        self.total = wanted.size
        self.hasher = Hasher(wanted.size)
        self.ended = False

    @property
    def complete(self) -> bool:
        return self.ended or (self.total is not None and self.hasher.count >= self.total)

    def close(self) -> None:
        self.file.close()

    def catch_up(self) -> None:
        """Hash what an earlier process left."""
        left = os.fstat(self.file.fileno()).st_size
        if self.total is not None and left > self.total:
            self.restart()
            left = 0
        if left:
            self.hasher.read(self.path)
            self.file.seek(0, os.SEEK_END)
        self.progress.start(self.wanted.name, self.total, already=self.hasher.count)

    def restart(self) -> None:
        """Begin again at byte 0, in a new file: where locks do not work, the old one may have been published by somebody else."""
        self.file.close()
        self.path.unlink(missing_ok=True)
        self.file = self.path.open("x+b")
        self.hasher = Hasher(self.total)
        self.ended = False
        self.progress.start(self.wanted.name, self.total, already=0)

    def write(self, data: bytes) -> None:
        with disk_errors(self.path, self.total):
            self.file.write(data)
        self.hasher.update(data)
        self.progress.advance(self.wanted.name, len(data), self.total)

    def flush(self) -> None:
        with disk_errors(self.path, self.total):
            self.file.flush()
            os.fsync(self.file.fileno())
            info, ours = (self.path.stat() if self.path.exists() else None), os.fstat(self.file.fileno())
        if info is None or (info.st_ino, info.st_size) != (ours.st_ino, self.hasher.count):
            raise ReplacedError(
                f"{self.wanted.name}: another process replaced the partial file", fix="run the same command again (locks do not work on this disk)"
            )


def _receive(session: Any, wanted: Wanted, state: _State, patience: Patience) -> float | None:
    """One request; returns the seconds to wait when the server asks for that."""
    offset = state.hasher.count
    headers = {**wanted.headers, "Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    with session.stream("GET", wanted.url, headers=headers, follow_redirects=True, timeout=patience.timeout) as response:
        status = response.status_code
        if status in (408, 425, 429) or status >= 500:
            return retry_after(response.headers.get("Retry-After"), patience.first_wait * 2)
        if status == 416:
            length = (response.headers.get("Content-Range") or "").rpartition("/")[2]
            if length.isdigit() and int(length) == offset and state.total in (None, offset):
                state.ended = True
            else:
                state.restart()
            return None
        if status not in (200, 206):
            raise _refused(wanted, status)
        if status == 206:
            begin, length = _content_range(response.headers.get("Content-Range"))
            if begin != offset or (length is not None and state.total is not None and length != state.total and wanted.size is None):
                state.restart()
                return None
            state.total = state.total if state.total is not None else length
        else:
            if offset:
                state.restart()  # the server ignored Range
            announced = response.headers.get("Content-Length")
            if state.total is None and announced is not None and announced.isdigit():
                state.total = int(announced)
        for data in response.iter_raw():
            state.write(data)
            if state.total is not None and state.hasher.count > state.total:
                break  # more than announced: verification will tell
        else:
            state.ended = state.total is None or state.hasher.count >= state.total or (status == 200 and _announced(response) == state.hasher.count)
    return None


def _announced(response: Any) -> int:
    text = response.headers.get("Content-Length") or ""
    return int(text) if text.isdigit() else -1


def _content_range(text: str | None) -> tuple[int, int | None]:
    with contextlib.suppress(ValueError, AttributeError):
        span, _, length = (text or "").removeprefix("bytes ").partition("/")
        return int(span.partition("-")[0]), int(length) if length.isdigit() else None
    return -1, None


def _refused(wanted: Wanted, status: int) -> DownloadError:
    fixes = {
        401: "the repository is private or gated: accept its terms on the hub, then `hf auth login` (or set HF_TOKEN)",
        403: "the repository is gated: accept its terms on the hub with the account of your token",
        404: "check repository, revision and file name (zoo info NAME)",
    }
    return DownloadError(
        f"cannot download {wanted.name}: the server answered {status}", tried=[wanted.url], fix=fixes.get(status, "try again later"), status=status
    )


# -- how downloads tell what they do -----------------------------------------------------------------------------------------


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
