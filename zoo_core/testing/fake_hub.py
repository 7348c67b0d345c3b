"""A small model hub on the loopback interface that misbehaves on request.

It speaks as much of the Hugging Face hub's HTTP interface as the real ``huggingface_hub`` client needs to look up and download files:
``/api/models/...`` (with ``blobs``), the tree listing, and ``/resolve/`` with redirects for large files.

    with FakeHub() as hub:
        commit = hub.add("org/model", {"config.json": b"{}", "model.safetensors": data})
        hub.misbehave("model.safetensors", Fault(drop_at=1000))          # the first answer ends after byte 1000
        os.environ["HF_ENDPOINT"] = hub.url
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

BIG = 1024
"""Files of at least this many bytes are kept as LFS objects: known by SHA-256 and served after a redirect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One misbehaviour of a file's download.

    Attributes:
        drop_at: Close the connection when this byte of the file is reached.
        hang_at: Stop sending at this byte until :meth:`FakeHub.release` (for killing a client there).
        body: Send these bytes instead, with status 200 and a fitting length (wrong bytes, a web page, a pointer...).
        content_type: For ``body``.
        no_range: Ignore the Range header: status 200 and the whole file.
        status: Answer with this status and no file (416, 429, 503...).
        retry_after: Value of the Retry-After header.
        drip: Send in pieces of this many bytes, ``delay`` seconds apart.
        redirect_loop: Redirect to itself for ever.
    """

    drop_at: int | None = None
    hang_at: int | None = None
    body: bytes | None = None
    content_type: str = "application/octet-stream"
    no_range: bool = False
    status: int | None = None
    retry_after: str | None = None
    drip: int = 0
    delay: float = 0.01
    redirect_loop: bool = False


@dataclass(slots=True)
class Request:
    """A request that the hub saw."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass(slots=True)
class _Repo:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    licence: str | None = None


class FakeHub:
    """The hub; a context manager.  ``hub.url`` is its address, ``hub.requests`` what was asked of it."""

    def __init__(self) -> None:
        self.repos: dict[str, _Repo] = {}
        self.requests: list[Request] = []
        self._faults: list[tuple[str, Fault, list[int]]] = []
        self._released = threading.Event()
        self.reached = threading.Event()
        """Set when a ``hang_at`` byte was sent."""
        self._lock = threading.Lock()
        hub = self

        class Handler(_Handler):
            owner = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def add(self, repo: str, files: dict[str, bytes], *, branch: str = "main", licence: str | None = None) -> str:
        """Publish a commit; returns its id."""
        commit = hashlib.sha1(json.dumps([repo, sorted((name, hashlib.sha256(data).hexdigest()) for name, data in files.items())]).encode()).hexdigest()
        entry = self.repos.setdefault(repo, _Repo())
        entry.commits[commit] = dict(files)
        entry.refs[branch] = commit
        entry.licence = licence
        return commit

    def misbehave(self, name: str, *faults: Fault, times: int | None = 1, path: str = "") -> None:
        """Give the next downloads of files that end in ``name`` these faults, one after the other, each ``times`` times (None: for ever).

        ``name="api"`` stands for the look-up of a repository.
        """
        with self._lock:
            self._faults += [(name, fault, [times if times is not None else -1]) for fault in faults]

    def behave(self) -> None:
        """Forget all faults that are left."""
        with self._lock:
            self._faults.clear()

    def release(self) -> None:
        """Let hanging downloads go on."""
        self._released.set()

    def downloads(self, name: str) -> list[Request]:
        """The GET requests for the content of files that end in ``name`` (redirects not counted)."""
        return [request for request in self.requests if request.method == "GET" and request.path.startswith("/cdn/") and unquote(request.path).endswith(name)]

    def _fault(self, name: str) -> Fault | None:
        with self._lock:
            for index, (pattern, fault, left) in enumerate(self._faults):
                if name.endswith(pattern):
                    left[0] -= 1
                    if left[0] == 0:
                        del self._faults[index]
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    owner: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub = self.owner
        hub.requests.append(Request(self.command, self.path, self.headers.get("Range"), self.headers.get("Authorization")))
        parts = urlsplit(self.path)
        path = unquote(parts.path).lstrip("/")
        try:
            if path.startswith("api/models/"):
                self._api(path.removeprefix("api/models/"), parse_qs(parts.query))
            elif "/resolve/" in path:
                self._resolve(path, body)
            elif path.startswith("cdn/"):
                self._cdn(path, body)
            else:
                self._send(404, b"not found")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _api(self, path: str, query: dict[str, list[str]]) -> None:
        fault = self.owner._fault("api")
        if fault is not None and fault.status:
            self._send(fault.status, b"", {"Retry-After": fault.retry_after} if fault.retry_after is not None else {})
            return
        pieces = path.split("/")
        repo, rest = "/".join(pieces[:2]), pieces[2:]
        entry = self.owner.repos.get(repo)
        if entry is None:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        revision = "/".join(rest[1:]) if rest and rest[0] in ("revision", "tree") else "main"
        commit = self._commit(entry, revision)
        if commit is None:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        files = entry.commits[commit]
        if rest and rest[0] == "tree":
            rows: list[dict[str, Any]] = [
                {"type": "file", "path": name, "size": len(data), "oid": _git(data)}
                | ({"lfs": {"oid": _sha(data), "size": len(data), "pointerSize": 134}} if len(data) >= BIG else {})
                for name, data in files.items()
            ]
            self._json(rows)
            return
        siblings = []
        for name, data in files.items():
            row: dict[str, Any] = {"rfilename": name}
            if "blobs" in query:
                row |= {"size": len(data), "blobId": _git(data)}
                if len(data) >= BIG:
                    row["lfs"] = {"sha256": _sha(data), "size": len(data), "pointerSize": 134}
            siblings.append(row)
        self._json(
            {
                "id": repo,
                "modelId": repo,
                "sha": commit,
                "siblings": siblings,
                "tags": [],
                "private": False,
                "cardData": {"license": entry.licence} if entry.licence else {},
            }
        )

    def _resolve(self, path: str, body: bool) -> None:
        repo, _, rest = path.partition("/resolve/")
        entry = self.owner.repos.get(repo)
        found = next(
            ((revision, rest.removeprefix(revision + "/")) for revision in ([*entry.refs, *entry.commits] if entry else []) if rest.startswith(revision + "/")),
            None,
        )
        commit = self._commit(entry, found[0]) if entry is not None and found is not None else None
        if entry is None or found is None or commit is None:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound" if entry is None else "RevisionNotFound"})
            return
        data = entry.commits[commit].get(found[1])
        if data is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        headers = {"X-Repo-Commit": commit, "X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{_sha(data) if len(data) >= BIG else _git(data)}"'}
        location = f"http://localhost:{self.owner.port}/cdn/{repo}/{commit}/{quote(found[1])}"  # another origin, as in real life
        if len(data) >= BIG or body:
            self._send(302, b"", headers | {"Location": location, "ETag": headers["X-Linked-Etag"]})
        else:
            self._send(200, data, headers | {"ETag": headers["X-Linked-Etag"]})

    def _cdn(self, path: str, body: bool) -> None:
        pieces = path.split("/")
        data = self.owner.repos["/".join(pieces[1:3])].commits[pieces[3]]["/".join(pieces[4:])]
        fault = (self.owner._fault(path) if body else None) or Fault()
        if fault.redirect_loop:
            self._send(302, b"", {"Location": self.path})
            return
        if fault.status is not None:
            headers = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
            self._send(fault.status, b"", headers | ({"Content-Range": f"bytes */{len(data)}"} if fault.status == 416 else {}))
            return
        if fault.body is not None:
            self._send(200, fault.body, {"Content-Type": fault.content_type})
            return
        begin = 0
        wanted = self.headers.get("Range")
        if wanted and not fault.no_range:
            begin = int(wanted.removeprefix("bytes=").partition("-")[0])
            if begin >= len(data):
                self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(data) - begin))
        self.send_header("ETag", f'"{_sha(data)}"')
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if body:
            self._stream(data, begin, fault)

    def _stream(self, data: bytes, begin: int, fault: Fault) -> None:
        stops = [stop for stop in (fault.drop_at, fault.hang_at) if stop is not None and stop >= begin]
        end = min([*stops, len(data)])
        step = fault.drip or 1 << 16
        for start in range(begin, end, step):
            self.wfile.write(data[start : min(start + step, end)])
            self.wfile.flush()
            if fault.drip:
                time.sleep(fault.delay)
        if end == len(data) and not stops:
            return
        if fault.hang_at is not None and end == fault.hang_at:
            self.owner.reached.set()
            self.owner._released.wait(60)
        self.close_connection = True

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @staticmethod
    def _commit(entry: _Repo, revision: str) -> str | None:
        return entry.refs.get(revision) or (revision if revision in entry.commits else None)


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _git(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
