"""Core of the zoo: interfaces, registry, loading, evaluation, command line. It knows no paper.

Names are loaded when first used; importing this package imports no torch.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing costs milliseconds that the command line can do without
if TYPE_CHECKING:
    from typing import Any

    from zoo_core.api import fit as fit
    from zoo_core.api import info as info
    from zoo_core.api import list_models as list_models
    from zoo_core.api import search as search
    from zoo_core.hookspecs import hookimpl as hookimpl
    from zoo_core.loading import load as load
    from zoo_core.registry import get_registry as get_registry

__version__ = "0.1.0"

PUBLIC = {
    "ZooError": "zoo_core.errors",
    "fit": "zoo_core.api",
    "get_registry": "zoo_core.registry",
    "hookimpl": "zoo_core.hookspecs",
    "info": "zoo_core.api",
    "list_models": "zoo_core.api",
    "load": "zoo_core.loading",
    "search": "zoo_core.api",
}
"""Public name -> module; ``zoo`` offers the same names."""


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        import importlib

        value = getattr(importlib.import_module(PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
