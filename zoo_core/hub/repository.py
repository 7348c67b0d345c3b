"""Files of a hub repository: from our cache, from the hub library's cache, or fetched."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo_core.errors import ChecksumError, DownloadError, OfflineError
from zoo_core.hub.cache import RepoCache, TrustFile, free_bytes, huggingface_cache, is_commit, locked, no_space, quarantine, remember, sha256_of, zoo_home
from zoo_core.interfaces.weights import FileRecord, ResolvedWeights

if TYPE_CHECKING:
    from zoo_core.hub.fetch import Wanted
    from zoo_core.hub.remote import RemoteRepo
    from zoo_core.hub.resolve import Context, WeightsEntry

MARGIN = 32 << 20
"""Bytes that a download leaves free on the disk."""


@dataclass(slots=True)
class _File:
    """A file on its way: name in the repository, what is known of it, where it is."""

    name: str
    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None
    trusted: bool = False
    path: Path | None = None
    verified: str = "no"


def from_hub(entry: WeightsEntry, context: Context) -> ResolvedWeights:
    """Resolve an ``hf://`` source.

    A pinned commit whose files are here, or an unpinned one that was fetched before, needs no network at all.
    """
    ref = entry.source
    ours, theirs = RepoCache(zoo_home() / "hub", ref.name), RepoCache(huggingface_cache(), ref.name)
    trust = TrustFile(ref.name)
    revision = entry.revision or "main"
    prefix = f"{ref.sub}/" if ref.sub else ""
    remote: RemoteRepo | None = None
    commit = revision if is_commit(revision) else None
    if commit is None and not (context.update and not context.offline):
        commit = trust.commit(revision) or ours.ref(revision) or theirs.ref(revision)
    if commit is None:
        if context.offline:
            raise _absent(entry, [prefix + file.path for file in entry.files], {}, "never fetched here")
        remote = _describe(ref.name, revision)
        commit = remote.commit
    files = [_File(prefix + file.path, file.size, file.sha256) for file in entry.files]
    if not files:
        listing = list(remote.files) if remote is not None else trust.listing(commit)
        if listing is None and not context.offline:
            remote = _describe(ref.name, commit)
            listing = list(remote.files)
        names = _names(commit, prefix, listing, ours, theirs)
        if not names:
            raise _absent(entry, [], {}, f"its file list at commit {commit[:12]} was never fetched here")
        files = [_File(name) for name in names]
    for file in files:
        seen = trust.file(commit, file.name)
        if file.sha256 is None and seen is not None:
            file.sha256, file.size, file.trusted = seen.get("sha256"), seen.get("size"), True
        _look(file, commit, ours, theirs, context)
    missing = [file for file in files if file.path is None]
    if missing and context.offline:
        raise _absent(entry, [file.name for file in missing], {file.name: file.size for file in missing}, f"commit {commit[:12]}")
    if missing:
        _fetch_all(missing, commit, ref.name, ours, context, remote)
    if any(file.path is not None and theirs.folder in file.path.parents for file in files) and not all(
        file.path is not None and theirs.folder in file.path.parents for file in files
    ):
        for file in files:
            if file.path is not None and theirs.folder in file.path.parents:
                file.path = ours.adopt(file.path, commit, file.name)
    _remember_trust(files, commit, revision, trust, list(remote.files) if remote is not None else None)
    if not is_commit(revision):
        ours.write_ref(revision, commit)
    for file in files:
        assert file.path is not None
        context.report.files.append(FileRecord(str(file.path), f"hf://{ref.name}@{commit}", file.path.stat().st_size, file.sha256 or "", file.verified))
    first = files[0]
    assert first.path is not None
    root = first.path.parents[len(first.name.split("/")) - 1] / ref.sub
    return ResolvedWeights(root, {file.name.removeprefix(prefix): file.path for file in files if file.path}, entry.layout, "hf://")


def _describe(repo: str, revision: str) -> RemoteRepo:
    from zoo_core.hub.remote import describe

    return describe(repo, revision)


def _names(commit: str, prefix: str, listing: list[str] | None, ours: RepoCache, theirs: RepoCache) -> list[str]:
    """The files that a load needs, when the catalogue names none: chosen from the repository's list; without one, a cached snapshot that has weights."""
    from zoo_core.hub.fetch import WEIGHT_SUFFIXES
    from zoo_core.hub.remote import choose_files

    if listing is not None:
        chosen = [prefix + name for name in choose_files([name.removeprefix(prefix) for name in listing if name.startswith(prefix)])]
        if not chosen:
            raise DownloadError(f"repository {ours.repo!r} has no weights{' below ' + prefix if prefix else ''}", tried=listing[:8], fix="check the source")
        return chosen
    for cache in (ours, theirs):
        folder = cache.snapshot(commit)
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
        if any(name.startswith(prefix) and name.endswith(WEIGHT_SUFFIXES) for name in names):
            return sorted(name for name in names if name.startswith(prefix))
    return []


def _look(file: _File, commit: str, ours: RepoCache, theirs: RepoCache, context: Context) -> None:
    """Find the file in a cache and verify it; a wrong one is quarantined (ours) or passed over (the library's)."""
    for cache in (ours, theirs):
        path = cache.find(commit, file.name)
        if path is None or (
            file.size is not None and path.stat().st_size != file.size and file.sha256 is None and _set_aside(path, cache is ours, "wrong size")
        ):
            continue
        if file.sha256:
            actual, how = sha256_of(path)
            if actual != file.sha256:
                actual, how = sha256_of(path, fresh=True)
            if actual != file.sha256:
                _mismatch(file, path, actual, cache is ours, context)
                continue
            file.verified = how
        file.path = path
        return


def _set_aside(path: Path, own: bool, why: str) -> bool:
    if own:
        quarantine(path, why)
    return True


def _mismatch(file: _File, path: Path, actual: str, own: bool, context: Context) -> None:
    since = " that this machine saw first" if file.trusted else ""
    reason = f"sha256 expected {file.sha256}{since}, got {actual}"
    if own:
        where = quarantine(path, reason)
        context.report.warnings.append(f"{file.name}: {reason}; moved to {where}")
    else:
        context.report.warnings.append(f"{path} of the hub library's cache is damaged ({reason}) and was not used")
    if context.offline and own:
        raise ChecksumError(
            f"{file.name} in the cache is damaged and cannot be fetched again offline",
            tried=[f"expected {file.sha256}", f"got      {actual}"],
            fix="zoo pull with network, or weights='PATH'",
            expected=file.sha256,
            actual=actual,
        )


def _fetch_all(missing: list[_File], commit: str, repo: str, ours: RepoCache, context: Context, remote: RemoteRepo | None) -> None:
    from zoo_core.hub.fetch import Wanted
    from zoo_core.hub.remote import auth_headers, file_url

    if any(file.sha256 is None or file.size is None for file in missing):
        remote = remote or _describe(repo, commit)
        absent = [file.name for file in missing if file.name not in remote.files]
        if absent:
            raise DownloadError(
                f"repository {repo!r} at {commit[:12]} has no file {', '.join(absent)}",
                tried=sorted(remote.files)[:8],
                fix="correct the file names in the catalogue",
            )
        for file in missing:
            known = remote.files[file.name]
            file.size = file.size if file.size is not None else known.size
            file.sha256, file.git_sha1 = file.sha256 or known.sha256, known.git_sha1
    keys = {file.name: file.sha256 or file.git_sha1 or hashlib.sha256(f"{commit}/{file.name}".encode()).hexdigest()[:40] for file in missing}
    needed = sum((file.size or 0) - _size(ours.partial(keys[file.name])) for file in missing)
    if needed + MARGIN > free_bytes(ours.folder):
        raise no_space(ours.folder, needed)
    headers = auth_headers()
    for file in missing:
        key = keys[file.name]
        lock = zoo_home() / "locks" / ours.folder.name / f"{key}.lock"
        with locked(lock, waiting=lambda who, name=file.name: context.progress.note("wait", name, text=f"waiting for {who}")):  # type: ignore[misc]
            wanted = Wanted(file_url(repo, commit, file.name), file.name, file.size, file.sha256, file.git_sha1, headers)
            _fetch_one(file, wanted, key, commit, ours, context)


def _fetch_one(file: _File, wanted: Wanted, key: str, commit: str, ours: RepoCache, context: Context) -> None:
    """Fetch and publish, unless another process was faster.  Where locks do not work, that may also show at the end; then its file is taken."""
    from zoo_core.hub.fetch import ReplacedError, fetch

    for attempt in range(3):
        there = ours.find(commit, file.name)
        if there is not None and (file.sha256 is None or sha256_of(there)[0] == file.sha256):
            file.path, file.verified = there, "remembered"
            return
        partial = ours.partial(key)
        try:
            digest = fetch(wanted, partial, progress=context.progress)
            file.path = ours.publish(partial, key, commit, file.name)
            break
        except (ReplacedError, FileNotFoundError, FileExistsError):
            if attempt == 2:
                raise
    file.verified = "downloaded" if file.sha256 or file.git_sha1 else "trusted-first-use"
    file.sha256 = digest
    assert file.path is not None
    remember(file.path, digest)
    context.report.bytes["downloaded"] = context.report.bytes.get("downloaded", 0) + file.path.stat().st_size


def _remember_trust(files: list[_File], commit: str, revision: str, trust: TrustFile, listing: list[str] | None) -> None:
    """Record digests of files that the catalogue does not pin."""
    new = {}
    for file in files:
        if file.path is not None and trust.file(commit, file.name) is None:
            if file.sha256 is None:
                file.sha256, _ = sha256_of(file.path)
                file.verified = "trusted-first-use"
            new[file.name] = {"sha256": file.sha256, "size": file.path.stat().st_size}
    if new or (listing is not None and trust.listing(commit) is None) or (not is_commit(revision) and trust.commit(revision) != commit):
        trust.record(commit, new, None if is_commit(revision) else revision, listing)


def _absent(entry: WeightsEntry, names: list[str], sizes: dict[str, int | None], why: str) -> OfflineError:
    known = {(f"{entry.source.sub}/" if entry.source.sub else "") + file.path: file.size for file in entry.files} | {
        key: value for key, value in sizes.items() if value
    }
    lines = [f"missing: {name} ({_text(known.get(name))})" for name in names] or [f"missing: all files ({why})"]
    return OfflineError(
        f"weights from {entry.source} are not on this machine ({why}) and the network may not be used",
        tried=lines,
        fix="on a machine with network: zoo pull NAME --to DIR (then weights='DIR' here), or zoo pack NAME",
        missing=[(name, known.get(name)) for name in names],
    )


def _text(size: int | None) -> str:
    return f"{size / 1e6:.1f} MB" if size else "size unknown"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
