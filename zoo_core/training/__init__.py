"""The training seam: what every recipe needs around its own step function.

Names are loaded when first used; see :class:`Trainer` for the whole picture and ``docs/training.md`` for a worked recipe.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo_core.training.came import CAME as CAME
    from zoo_core.training.config import TrainConfig as TrainConfig
    from zoo_core.training.data import Batches as Batches
    from zoo_core.training.ema import Ema as Ema
    from zoo_core.training.log import read_log as read_log
    from zoo_core.training.seeding import isolated_rng as isolated_rng
    from zoo_core.training.seeding import seed_everything as seed_everything
    from zoo_core.training.state import TrainState as TrainState
    from zoo_core.training.store import latest_checkpoint as latest_checkpoint
    from zoo_core.training.store import load_weights as load_weights
    from zoo_core.training.trainer import Trainer as Trainer

_LAZY = {
    "CAME": "came",
    "TrainConfig": "config",
    "Batches": "data",
    "Ema": "ema",
    "read_log": "log",
    "isolated_rng": "seeding",
    "seed_everything": "seeding",
    "TrainState": "state",
    "latest_checkpoint": "store",
    "load_weights": "store",
    "Trainer": "trainer",
}
__all__ = sorted(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
