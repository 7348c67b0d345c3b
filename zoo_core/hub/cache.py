"""The cache folder: where files lie, how they get there (whole, under a lock, by renaming) and how they leave; digests of what lies there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo_core.errors import CacheAccessError, NoSpaceError
from zoo_core.names import safe_join

_TRUE = ("1", "on", "yes", "true")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR)


def zoo_home() -> Path:
    """``ZOO_HOME``, else ``$XDG_CACHE_HOME/zoo``, else ``~/.cache/zoo``."""
    if os.environ.get("ZOO_HOME"):
        return Path(os.environ["ZOO_HOME"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "zoo"


def huggingface_cache() -> Path:
    """The cache of the huggingface_hub library, which is read but never written."""
    if os.environ.get("HF_HUB_CACHE"):
        return Path(os.environ["HF_HUB_CACHE"]).expanduser()
    if os.environ.get("HF_HOME"):
        return Path(os.environ["HF_HOME"]).expanduser() / "hub"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"


def is_offline(flag: bool | None = None) -> bool:
    """``flag`` when given, else whether ``ZOO_OFFLINE`` or ``HF_HUB_OFFLINE`` is set to 1, on, yes or true."""
    return flag if flag is not None else any(os.environ.get(name, "").lower() in _TRUE for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE"))


@contextlib.contextmanager
def disk_errors(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn errors of the file system into :class:`NoSpaceError` and :class:`CacheAccessError`."""
    try:
        yield
    except (NoSpaceError, CacheAccessError):
        raise
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise no_space(path, needed) from error
        if error.errno in _NO_ACCESS:
            what = f"cannot write to the cache at {str(path)!r}: {error.strerror}"
            raise CacheAccessError(what, fix="set ZOO_HOME to a folder you may write to (a short path), or correct its owner and permissions") from error
        raise


def no_space(path: Path, needed: int | None) -> NoSpaceError:
    free = free_bytes(path)
    wanted = f"{needed / 1e6:.1f} MB needed, " if needed is not None else ""
    return NoSpaceError(
        f"no room at {str(path)!r}: {wanted}{free / 1e6:.1f} MB free",
        tried=["a partly downloaded file was kept and will be resumed"],
        fix="zoo cache prune, or set ZOO_HOME to a bigger disk",
        needed=needed,
        free=free,
    )


def free_bytes(path: Path) -> int:
    import shutil

    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write(temporary)``, flush, and rename the result to ``path``; on failure nothing is left behind.

    Raises:
        NoSpaceError, CacheAccessError: The disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    with disk_errors(path):
        try:
            write(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            if not isinstance(error, OSError) and ("No space left" in str(error) or "os error 28" in str(error)):
                raise no_space(path, None) from error  # safetensors' own error type
            raise


@contextlib.contextmanager
def locked(path: Path, *, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock file ``path``: one holder among all processes and threads.

    The system frees the lock when its holder dies; where the file system has no locks, filelock falls back to a marker file and recovers it when the
    recorded process is gone.  Who holds it since when stands beside it (``.owner``) and is told to ``waiting`` once.
    """
    from filelock import FileLock, Timeout

    owner = path.with_name(path.name + ".owner")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(path), thread_local=False)
        try:
            lock.acquire(timeout=0.2)
        except Timeout:
            if waiting is not None:
                waiting(_owner_text(owner))
            lock.acquire()
    try:
        with contextlib.suppress(OSError):
            owner.write_text(json.dumps({"pid": os.getpid(), "since": time.time()}))
        yield
    finally:
        with contextlib.suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def _owner_text(owner: Path) -> str:
    try:
        record = json.loads(owner.read_text())
        return f"another process (pid {int(record['pid'])}, for {max(0, time.time() - float(record['since'])):.0f} s)"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def quarantine(path: Path, reason: str) -> Path:
    """Move a bad file out of the way (never deleted silently) and note why."""
    folder = zoo_home() / "quarantine"
    target = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}-{path.name[-120:]}"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        real = path.resolve()
        os.replace(real, target)
        if path.is_symlink():
            path.unlink()
        target.with_name(target.name + ".why.txt").write_text(f"{path}\n{reason}\n")
    return target


@dataclass(frozen=True, slots=True)
class RepoCache:
    """One hub repository in a cache folder, in the layout of huggingface_hub: ``blobs/``, ``snapshots/<commit>/``, ``refs/``."""

    root: Path
    repo: str

    @property
    def folder(self) -> Path:
        return self.root / f"models--{self.repo.replace('/', '--')}"

    def snapshot(self, commit: str) -> Path:
        return self.folder / "snapshots" / commit

    def find(self, commit: str, name: str) -> Path | None:
        """The file ``name`` of ``commit`` when it is there."""
        path = safe_join(self.snapshot(commit), name)
        with disk_errors(path):
            return path if path.is_file() else None

    def ref(self, revision: str) -> str | None:
        """The commit that a branch or tag had when it was last asked for."""
        try:
            commit = safe_join(self.folder / "refs", revision).read_text().strip()
        except OSError:
            return None
        return commit if is_commit(commit) else None

    def write_ref(self, revision: str, commit: str) -> None:
        path = safe_join(self.folder / "refs", revision)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomically(path, lambda temporary: temporary.write_text(commit))

    def partial(self, key: str) -> Path:
        """Where the file with this digest (or other identity) grows."""
        return self.folder / "blobs" / f"{key}.partial"

    def publish(self, partial: Path, key: str, commit: str, name: str) -> Path:
        """Give a complete file its final name; returns the path in the snapshot.  A link where that is possible, else the file itself."""
        blob = self.folder / "blobs" / key
        pointer = safe_join(self.snapshot(commit), name)
        with disk_errors(pointer):
            pointer.parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial, blob)
            place(blob, pointer, move=True)
        return pointer

    def adopt(self, file: Path, commit: str, name: str) -> Path:
        """Make a file of another cache part of this snapshot."""
        pointer = safe_join(self.snapshot(commit), name)
        with disk_errors(pointer):
            pointer.parent.mkdir(parents=True, exist_ok=True)
            place(file.resolve(), pointer, move=False)
        return pointer


def place(file: Path, pointer: Path, *, move: bool) -> None:
    """Put ``file`` at ``pointer``: as a symbolic link (relative when near), else moved or copied; always by renaming over what was there."""
    temporary = pointer.with_name(f".{pointer.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        near = os.path.commonpath([file, pointer]) not in ("", os.path.sep)
        os.symlink(os.path.relpath(file, pointer.parent) if near else file, temporary)
    except (OSError, NotImplementedError, ValueError):
        if move:
            os.replace(file, pointer)
            return
        import shutil

        try:
            shutil.copyfile(file, temporary)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    os.replace(temporary, pointer)


def is_commit(text: str | None) -> bool:
    """Whether ``text`` is a full git commit id."""
    return text is not None and len(text) == 40 and all(char in "0123456789abcdef" for char in text)


def read_json(path: Path) -> Any:
    """The content of a small JSON file of ours, or None when it is absent or broken."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


# -- digests: computing, remembering and trusting them -----------------------------------------------------------------------


_CHUNK = 1 << 20
_session: dict[str, tuple[list[Any], str]] = {}


class Hasher:
    """SHA-256, and git's SHA-1 of a blob when the size is known beforehand."""

    def __init__(self, size: int | None = None) -> None:
        self.sha256 = hashlib.sha256()
        self.git = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False) if size is not None else None
        self.count = 0

    def update(self, data: bytes) -> None:
        self.sha256.update(data)
        if self.git is not None:
            self.git.update(data)
        self.count += len(data)

    def read(self, path: Path, advance: Callable[[int], None] | None = None) -> Hasher:
        """Add a file's content."""
        with path.open("rb", buffering=0) as file:
            while data := file.read(_CHUNK):
                self.update(data)
                if advance is not None:
                    advance(len(data))
        return self


def sha256_of(path: Path, *, fresh: bool = False) -> tuple[str, str]:
    """SHA-256 of a file and how it was known: ``"remembered"`` or ``"hashed"``.

    A digest is remembered under (path, size, modification time in ns, inode); any change of these means hashing again.
    """
    real = path.resolve()
    key = _identity(real)
    record = _session.get(str(real))
    if not fresh:
        stored = record or _load(real)
        if stored is not None and stored[0] == key:
            return stored[1], "remembered"
    digest = Hasher().read(real).sha256.hexdigest()
    remember(real, digest)
    return digest, "hashed"


def remember(path: Path, digest: str) -> None:
    """Remember the digest of a file as it is now; a cache that cannot be written is remembered for this process only."""
    real = path.resolve()
    key = _identity(real)
    _session[str(real)] = (key, digest)
    target = _verdict_file(real)
    with contextlib.suppress(OSError, CacheAccessError, NoSpaceError):
        target.parent.mkdir(parents=True, exist_ok=True)
        atomically(target, lambda temporary: temporary.write_text(json.dumps({"path": str(real), "key": key, "sha256": digest})))


def _identity(path: Path) -> list[Any]:
    info = path.stat()
    return [info.st_size, info.st_mtime_ns, info.st_ino]


def _verdict_file(path: Path) -> Path:
    return zoo_home() / "verdicts" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:40]}.json"


def _load(path: Path) -> tuple[list[Any], str] | None:
    record = read_json(_verdict_file(path))
    if isinstance(record, dict) and record.get("path") == str(path) and isinstance(record.get("sha256"), str):
        return record["key"], record["sha256"]
    return None


class TrustFile:
    """Trust on first use: what this machine saw when it first fetched an unpinned file of a repository.

    Later loads use the same commit and demand the same digest, so an unpinned name does not change under a program; ``zoo pull --update`` renews it.
    """

    def __init__(self, repo: str) -> None:
        self.path = zoo_home() / "trust" / f"{repo.replace('/', '--')}.json"
        content = read_json(self.path)
        self.data: dict[str, Any] = content if isinstance(content, dict) else {}

    def commit(self, revision: str) -> str | None:
        value = self.data.get("revisions", {}).get(revision)
        return value if isinstance(value, str) else None

    def file(self, commit: str, name: str) -> dict[str, Any] | None:
        value = self.data.get("files", {}).get(commit, {}).get(name)
        return value if isinstance(value, dict) else None

    def listing(self, commit: str) -> list[str] | None:
        """All file names of the repository at this commit, when the hub was asked."""
        value = self.data.get("listings", {}).get(commit)
        return [str(name) for name in value] if isinstance(value, list) else None

    def record(self, commit: str, files: dict[str, dict[str, Any]], revision: str | None = None, listing: list[str] | None = None) -> None:
        """Add what was seen; what stands there already is kept."""
        content = read_json(self.path)  # another process may have added to it
        self.data = content if isinstance(content, dict) else self.data
        known = self.data.setdefault("files", {}).setdefault(commit, {})
        for name, entry in files.items():
            known.setdefault(name, entry | {"first_seen": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
        if listing is not None:
            self.data.setdefault("listings", {})[commit] = sorted(listing)
        if revision is not None:
            self.data.setdefault("revisions", {})[revision] = commit
        with contextlib.suppress(OSError, CacheAccessError, NoSpaceError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            atomically(self.path, lambda temporary: temporary.write_text(json.dumps(self.data, indent=1, sort_keys=True)))
