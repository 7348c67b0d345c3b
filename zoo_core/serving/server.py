"""``zoo serve``: one model behind OpenAI-compatible paths, on the standard library's HTTP server.

``GET /health``, ``GET /v1/models``, ``POST /v1/images/generations``, ``/v1/completions``, ``/v1/chat/completions`` (with ``"stream": true`` as
server-sent events).  One request runs at a time; others wait.
Meant for one machine: it listens on the loopback address unless told otherwise; an API key can be asked for.
"""

from __future__ import annotations

import hmac
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from zoo_core.errors import DeviceError, InputError, UnknownModelError, ZooError
from zoo_core.serving import protocol

MAX_BODY = 64 << 20


class Server(ThreadingHTTPServer):
    """Serves ``model``; ``port`` 0 takes a free one (see ``server_port``)."""

    daemon_threads = True

    def __init__(self, model: Any, host: str = "127.0.0.1", port: int = 8000, *, api_key: str | None = None) -> None:
        self.model = model
        self.api_key = api_key
        self.turn = threading.Lock()
        super().__init__((host, port), Handler)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "zoo"

    def do_GET(self) -> None:
        if self.path == "/health":
            self._json({"status": "ok"})
        elif not self._allowed():
            return
        elif self.path == "/v1/models":
            self._json({"object": "list", "data": [{"id": self.server.model.name, "object": "model", "owned_by": self.server.model.card.get("plugin", "")}]})
        else:
            self._problem(404, f"no such path: {self.path}")

    def do_POST(self) -> None:
        if not self._allowed():
            return
        body = self._body()
        if body is None:
            return
        try:
            wanted = body.get("model")
            if wanted is not None and wanted != self.server.model.name:
                raise UnknownModelError(f"this server has {self.server.model.name!r}, not {wanted!r}", fix="leave 'model' out")
            with self.server.turn:
                self._answer(body)
        except ZooError as error:
            self._problem(404 if isinstance(error, UnknownModelError) else 503 if isinstance(error, DeviceError) else 400, str(error))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except (ValueError, TypeError) as error:
            self._problem(400, str(error))
        except Exception as error:
            print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
            self._problem(500, f"{type(error).__name__} while running the model")

    def _answer(self, body: dict[str, Any]) -> None:
        model = self.server.model
        if self.path == "/v1/images/generations":
            self._json(protocol.images(model, body))
        elif self.path in ("/v1/completions", "/v1/chat/completions"):
            answer = protocol.text(model, body, chat="chat" in self.path)
            if callable(answer):
                self._events(answer())
            else:
                self._json(answer)
        else:
            self._problem(404, f"no such path: {self.path}")

    def _allowed(self) -> bool:
        key = self.server.api_key
        if key is None or hmac.compare_digest(self.headers.get("Authorization", "").encode(), f"Bearer {key}".encode()):
            return True
        self.close_connection = True
        self._problem(401, "the API key is missing or wrong")
        return False

    def _body(self) -> dict[str, Any] | None:
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if not 0 <= length <= MAX_BODY:
            self.close_connection = True
            self._problem(413 if length > MAX_BODY else 411, f"Content-Length must be given and at most {MAX_BODY}")
            return None
        try:
            body = json.loads(self.rfile.read(length))
            if not isinstance(body, dict):
                raise ValueError("an object is expected")
        except (ValueError, RecursionError) as error:
            self._problem(400, f"the body is not a JSON object: {error}")
            return None
        return body

    def _json(self, data: Any, status: int = 200) -> None:
        content = json.dumps(data, default=str).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _events(self, chunks: Any) -> None:
        """Server-sent events; the connection's end is the stream's end.  A failure before the first chunk is an ordinary error answer."""
        first = next(chunks, None)
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            while first is not None:
                self.wfile.write(b"data: " + json.dumps(first).encode() + b"\n\n")
                self.wfile.flush()
                first = next(chunks, None)
            self.wfile.write(b"data: [DONE]\n\n")
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:  # the status line is out already
            self.wfile.write(b"data: " + json.dumps({"error": {"message": str(error), "type": type(error).__name__}}).encode() + b"\n\n")

    def _problem(self, status: int, message: str) -> None:
        self._json({"error": {"message": message, "type": "invalid_request_error" if status < 500 else "server_error", "code": status}}, status)

    def log_message(self, format: str, *args: Any) -> None:
        print(f"{self.address_string()} {format % args}", file=sys.stderr)


def serve(model: Any, host: str, port: int, *, api_key: str | None = None) -> None:
    """Serve until interrupted.  Raises InputError when the address cannot be used."""
    try:
        server = Server(model, host, port, api_key=api_key)
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen on {host}:{port}: {error}", fix="give another --port") from None
    with server:
        print(f"serving {model.name} at http://{host}:{server.server_port}/v1 (Ctrl-C ends it)", file=sys.stderr, flush=True)
        try:
            server.serve_forever()
        finally:
            server.shutdown()
