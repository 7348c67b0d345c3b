"""DC-AE: deep compression autoencoder (arXiv 2410.10733) for the zoo."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {"DCAE": "zoo_dc_ae.autoencoder", "AutoencoderConfig": "zoo_dc_ae.config", "CoderConfig": "zoo_dc_ae.config"}
__all__ = sorted(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
