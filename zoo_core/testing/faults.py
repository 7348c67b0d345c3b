"""Faults on request, for tests: no network, full disk, read-only folder, no links, a killed process, hostile files.

All are context managers or plain functions; :mod:`zoo_core.testing.weight_fixtures` offers them as pytest fixtures.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

_guards: list[Callable[[str, tuple[Any, ...]], None]] = []
_installed = threading.Event()


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for guard in tuple(_guards):
        guard(event, arguments)


@contextlib.contextmanager
def _audited(guard: Callable[[str, tuple[Any, ...]], None]) -> Iterator[None]:
    """Let ``guard`` see the interpreter's audit events; what it raises ends the operation."""
    if not _installed.is_set():
        sys.addaudithook(_hook)
        _installed.set()
    _guards.append(guard)
    try:
        yield
    finally:
        _guards.remove(guard)


class NetworkUsed(AssertionError):
    """A socket was used although the test forbids it."""


@contextlib.contextmanager
def no_network(*, loopback: bool = False) -> Iterator[list[str]]:
    """Make every use of a network socket raise :class:`NetworkUsed` (with ``loopback=True``: every one that leaves this machine).

    It works below the Python modules (audit events), so no client library gets around it.  Yields the list of attempts, because a library may
    swallow the exception: check that it is empty.
    """
    attempts: list[str] = []

    def guard(event: str, arguments: tuple[Any, ...]) -> None:
        if not event.startswith("socket."):
            return
        text = f"{event} {arguments[1:]!r}"
        if event == "socket.__new__":
            inet = arguments[1] in (2, 10, 23, 30) if len(arguments) > 1 else True
            if loopback or not inet:
                return
        elif event in ("socket.connect", "socket.sendto", "socket.bind"):
            address = arguments[1]
            if not isinstance(address, tuple) or (loopback and address[0] in ("127.0.0.1", "::1", "localhost")):
                return
        elif event == "socket.getaddrinfo":
            if loopback and arguments[0] in ("127.0.0.1", "::1", "localhost", b"127.0.0.1"):
                return
            text = f"{event} {arguments[:2]!r}"
        else:
            return
        attempts.append(text)
        raise NetworkUsed(text)

    with _audited(guard):
        yield attempts


def _below(folder: Path, value: Any) -> bool:
    if isinstance(value, bytes):
        value = os.fsdecode(value)
    if not isinstance(value, (str, os.PathLike)):
        return False
    path = os.path.abspath(os.fspath(value))
    return path == str(folder) or path.startswith(str(folder) + os.sep)


@contextlib.contextmanager
def read_only(folder: str | os.PathLike[str], *, code: int = errno.EACCES) -> Iterator[None]:
    """Refuse every change below ``folder`` as a read-only or foreign-owned folder would (works for root too)."""
    root = Path(os.path.abspath(folder))
    changes = {"os.mkdir": (0,), "os.rename": (0, 1), "os.symlink": (1,), "os.link": (1,), "os.remove": (0,), "os.rmdir": (0,), "os.truncate": (0,)}

    def guard(event: str, arguments: tuple[Any, ...]) -> None:
        paths: list[Any] = []
        if event == "open":
            path, mode, flags = arguments
            writes = any(char in mode for char in "wax+") if isinstance(mode, str) else bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            paths = [path] if writes else []
        elif event in changes:
            paths = [arguments[index] for index in changes[event]]
        for path in paths:
            if _below(root, path):
                raise OSError(code, os.strerror(code), os.fspath(path))

    with _audited(guard):
        yield


@contextlib.contextmanager
def no_links() -> Iterator[None]:
    """Refuse symbolic links, as a file system or account without that right does."""

    def guard(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.symlink":
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), os.fspath(arguments[1]))

    with _audited(guard):
        yield


@contextlib.contextmanager
def full_disk(folder: str | os.PathLike[str], after: int = 0, *, code: int = errno.ENOSPC) -> Iterator[None]:
    """Let files below ``folder`` take ``after`` more bytes in all, then fail each write with ENOSPC (or EDQUOT).

    Covers files that Python opens.  Libraries that write by themselves are reached by :func:`limited_file_size` in a child process.
    """
    root, left = Path(os.path.abspath(folder)), [after]

    class Raw(io.FileIO):
        def write(self, data: Any) -> int:
            size = memoryview(data).nbytes
            take = min(size, left[0])
            if size and not take:
                raise OSError(code, os.strerror(code), str(self.name))
            left[0] -= take
            return super().write(memoryview(data).cast("B")[:take]) or 0

    original = io.open

    def opened(
        file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, errors: str | None = None, newline: str | None = None, *rest: Any
    ) -> Any:
        if not any(char in mode for char in "wax+") or not _below(root, file):
            return original(file, mode, buffering, encoding, errors, newline, *rest)
        raw = Raw(os.fspath(file), mode.replace("b", "").replace("t", ""))
        buffered: Any = raw if buffering == 0 else (io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw))
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline)

    io.open = builtins.open = opened  # type: ignore[assignment]
    try:
        yield
    finally:
        io.open = builtins.open = original


def limited_file_size(size: int) -> None:
    """Let the kernel refuse files above ``size`` bytes in this process from now on; for child processes only."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def kill_when(command: Sequence[str], condition: Callable[[], bool], *, timeout: float = 60.0, kill: int = 9, env: dict[str, str] | None = None) -> int:
    """Start ``command`` and send it signal ``kill`` as soon as ``condition()`` holds; returns its exit status (negative: the signal).

    Raises:
        AssertionError: It ended by itself before, or the condition never held.
    """
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        end = time.monotonic() + timeout
        try:
            while not condition():
                if child.poll() is not None:
                    _fail(
                        f"the child ended with {child.returncode} before it could be killed: {(child.stderr.read() if child.stderr else b'').decode()[-2000:]}"
                    )
                if time.monotonic() > end:
                    _fail("the condition never held")
                time.sleep(0.005)
        except BaseException:
            child.kill()
            raise
        child.send_signal(kill)
        return child.wait(timeout)


def _fail(text: str) -> NoReturn:
    raise AssertionError(text)
