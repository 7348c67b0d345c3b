"""What the hub says about a repository: commit, files, sizes, digests.  All through the huggingface_hub client."""

from __future__ import annotations

import contextlib
import email.utils
import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from zoo_core.errors import DownloadError, OfflineError
from zoo_core.hub.cache import is_offline
from zoo_core.names import SourceRef, parse_source, safe_relative


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository; ``sha256`` for large (LFS) files, ``git_sha1`` for the others."""

    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None


@dataclass(frozen=True, slots=True)
class RemoteRepo:
    """A repository at one commit."""

    commit: str
    files: dict[str, RemoteFile] = field(default_factory=dict)
    licence: str | None = None


_sleep = time.sleep


def endpoint() -> str:
    """The hub's address: ``HF_ENDPOINT`` now, else the library's default."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def describe(repo: str, revision: str | None) -> RemoteRepo:
    """Ask the hub for commit and files; every file name is checked before anything is done with it.

    Raises:
        DownloadError: Not reachable, unknown, private or gated.
        UnsafePathError: A file name would leave its folder.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    failures: list[str] = []
    for attempt in range(4):
        try:
            info = HfApi(endpoint=endpoint()).model_info(repo, revision=revision, files_metadata=True, timeout=20)
            break
        except OfflineModeIsEnabled as error:
            raise OfflineError(f"the hub may not be asked about {repo!r}: offline mode is on", fix="unset HF_HUB_OFFLINE") from error
        except HfHubHTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            failures.append(f"{endpoint()}: {status} {type(error).__name__}")
            if status not in (408, 425, 429) and status < 500:
                fixes = {
                    401: "hf auth login (does it exist? is it private or gated?)",
                    403: "accept the repository's terms on the hub",
                    404: "check repository and revision",
                }
                raise DownloadError(
                    f"the hub does not give out {repo!r} at {revision or 'main'!r}", tried=failures, fix=fixes.get(status), status=status
                ) from error
            wait = retry_after(error.response.headers.get("Retry-After") if error.response is not None else None, 0.5 * 2**attempt)
        except (OSError, ValueError, _http_errors()) as error:
            failures.append(f"{endpoint()}: {type(error).__name__}: {str(error)[:200]}")
            wait = 0.5 * 2**attempt
        _sleep(min(wait, 60.0))
    else:
        raise DownloadError(
            f"the hub cannot be reached to look up {repo!r}",
            tried=failures,
            fix="check the network; `zoo pull --to` and `zoo pack` carry weights to machines without one",
        )
    files: dict[str, RemoteFile] = {}
    for item in info.siblings or []:
        name = str(safe_relative(item.rfilename))
        lfs: Any = item.lfs
        files[name] = RemoteFile(lfs.size, lfs.sha256) if lfs is not None else RemoteFile(item.size, None, item.blob_id)
    return RemoteRepo(str(info.sha), files, getattr(info.card_data, "license", None) if info.card_data else None)


def _http_errors() -> type[Exception]:
    """Base class of the errors of the client library that huggingface_hub uses (httpx, httpx2...)."""
    from huggingface_hub import get_session

    return sys.modules[type(get_session()).__mro__[-2].__module__.partition(".")[0]].HTTPError  # type: ignore[no-any-return]


def retry_after(text: str | None, default: float) -> float:
    """Seconds that a ``Retry-After`` header (number or date) asks for."""
    if text:
        with contextlib.suppress(ValueError):
            return max(0.0, float(text))
        with contextlib.suppress(ValueError, TypeError):
            return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return default


def file_url(repo: str, commit: str, name: str) -> str:
    from huggingface_hub import hf_hub_url

    return str(hf_hub_url(repo, name, revision=commit, endpoint=endpoint()))


def auth_headers() -> dict[str, str]:
    from huggingface_hub.utils._headers import build_hf_headers

    return {key: str(value) for key, value in build_hf_headers(library_name="zoo").items()}


def pin(source: str | SourceRef, files: list[str] | None = None) -> tuple[str, list[dict[str, Any]]]:
    """Commit and ``{path, size, sha256}`` of the files of an ``hf://`` source, for the catalogue.

    Small files that the hub does not keep by SHA-256 are fetched (below 20 MB) and hashed, after their git digest was checked.

    Args:
        source: ``hf://org/repo[@revision][/sub]``.
        files: The files to pin, relative to the source; None chooses as a load would (see :func:`choose_files`).

    Returns:
        (revision of 40 hex digits, entries sorted by path).

    Raises:
        DownloadError: The repository or one of the files does not exist, or the hub cannot be reached.
        OfflineError: The network may not be used.
    """
    import tempfile
    from pathlib import Path

    from zoo_core.hub.fetch import Wanted, fetch

    ref = parse_source(source) if isinstance(source, str) else source
    if ref.kind != "hf":
        raise DownloadError(f"{source} has no revision to pin", fix="only hf:// sources are pinned")
    if is_offline():
        raise OfflineError(f"{source} cannot be pinned offline", fix="unset ZOO_OFFLINE and HF_HUB_OFFLINE")
    remote = describe(ref.name, ref.revision)
    prefix = f"{ref.sub}/" if ref.sub else ""
    names = files if files is not None else choose_files([name.removeprefix(prefix) for name in remote.files if name.startswith(prefix)])
    absent = [name for name in names if prefix + name not in remote.files]
    if absent:
        raise DownloadError(f"{source} has no file {', '.join(absent)}", tried=[f"commit {remote.commit}"], fix="correct the file names in the fragment")
    entries = []
    for name in sorted(names):
        entry = remote.files[prefix + name]
        digest = entry.sha256
        if digest is None:
            with tempfile.TemporaryDirectory() as folder:
                wanted = Wanted(file_url(ref.name, remote.commit, prefix + name), name, entry.size, None, entry.git_sha1, auth_headers())
                digest = fetch(wanted, Path(folder) / "file.partial") if (entry.size or 0) < 20_000_000 else None
        entries.append({"path": name, "size": entry.size, "sha256": digest})
    return remote.commit, entries


_SKIP = (".onnx", ".msgpack", ".h5", ".ot", ".tflite", ".md", ".gitattributes", ".png", ".jpg", ".jpeg", ".webp", ".gif", ".mp4", ".pdf", ".ipynb", ".py")


def choose_files(names: list[str]) -> list[str]:
    """The files of a repository that a load needs when the catalogue lists none: configurations, tokenizers and one set of weights per folder.

    >>> choose_files(["README.md", "config.json", "model.safetensors", "pytorch_model.bin", "x.onnx"])
    ['config.json', 'model.safetensors']
    """
    kept = [name for name in names if not name.lower().endswith(_SKIP) and not name.startswith(".")]
    better = {name.rpartition("/")[0] for name in kept if name.endswith(".safetensors")}
    pickles = (".bin", ".pt", ".pth", ".ckpt", ".bin.index.json")
    return sorted(name for name in kept if not (name.endswith(pickles) and name.rpartition("/")[0] in better))
