"""The front door of the zoo: ``import zoo; zoo.load("sana-0.6b")``.  Everything is loaded when first used."""

from __future__ import annotations

import zoo_core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__version__ = zoo_core.__version__
__zoo__ = True
"""Marks this module as ours (``zoo doctor`` looks for a foreign ``zoo``)."""
__all__ = list(zoo_core.PUBLIC)


def __getattr__(name: str) -> Any:
    if name in zoo_core.PUBLIC:
        return getattr(zoo_core, name)
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


if __name__ == "__main__":  # python -m zoo, torchrun -m zoo
    import sys

    from zoo_core.cli import main

    sys.exit(main())
