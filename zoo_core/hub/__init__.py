"""Weights: from a name in the catalogue to verified files on this machine.

    resolve_weights(spec)                      # what zoo.load uses
    pin("hf://org/repo")                       # commit and digests for the catalogue
    write_pack(...), read_pack(...)            # one-file bundles for machines without network

Everything is imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo_core.hub.cache import zoo_home
    from zoo_core.hub.fetch import Progress
    from zoo_core.hub.pack import read_pack, write_pack
    from zoo_core.hub.remote import pin
    from zoo_core.hub.resolve import resolve_weights
    from zoo_core.names import SourceRef, parse_source, safe_join, safe_relative

_LAZY = {
    "zoo_home": "zoo_core.hub.cache",
    "SourceRef": "zoo_core.names",
    "parse_source": "zoo_core.names",
    "safe_join": "zoo_core.names",
    "safe_relative": "zoo_core.names",
    "read_pack": "zoo_core.hub.pack",
    "write_pack": "zoo_core.hub.pack",
    "Progress": "zoo_core.hub.fetch",
    "pin": "zoo_core.hub.remote",
    "resolve_weights": "zoo_core.hub.resolve",
}
__all__ = ["Progress", "SourceRef", "parse_source", "pin", "read_pack", "resolve_weights", "safe_join", "safe_relative", "write_pack", "zoo_home"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'zoo_core.hub' has no attribute {name!r}")
