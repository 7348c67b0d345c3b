"""``zoo serve``."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer


def serve(
    name: Annotated[str, typer.Argument(help="Model: name[@variant], a folder, hf://org/repo or a bundle.zoo")],
    host: Annotated[str, typer.Option(help="Address to listen on; anything but the loopback address is reachable from outside.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda...")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="Number format.")] = None,
    weights: Annotated[str | None, typer.Option(help="File, folder, hf://... or 'random'.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Configuration change (repeatable).")] = None,
) -> None:
    """HTTP server with OpenAI-compatible paths.  With ZOO_API_KEY set, requests must carry it as bearer token."""
    from zoo_core.loading import load
    from zoo_core.serving.server import serve as run

    key = os.environ.get("ZOO_API_KEY") or None
    if host not in ("127.0.0.1", "localhost", "::1") and key is None:
        print(f"warning: {host} is reachable from outside and no ZOO_API_KEY is set: anybody may use this server", file=sys.stderr)
    run(load(name, device=device, dtype=dtype, weights=weights, overrides=overrides), host, port, api_key=key)
