"""Random number generators: seeding, saving, restoring, isolating."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def mix(*values: int) -> int:
    """One 63-bit seed from several numbers (order matters, collisions are improbable)."""
    state = np.random.SeedSequence([value % 2**64 for value in values]).generate_state(2, np.uint32)
    return (int(state[0]) << 31) ^ int(state[1])


def rng_state(generator: torch.Generator | None = None) -> dict[str, Any]:
    """All generator states as plain data and uint8 tensors."""
    version, words, gauss = random.getstate()
    legacy: Any = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [legacy[0], [int(w) for w in legacy[1]], int(legacy[2]), int(legacy[3]), float(legacy[4])],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    if generator is not None:
        state["generator"] = generator.get_state()
    return state


def set_rng_state(state: dict[str, Any], generator: torch.Generator | None = None) -> None:
    """Restore what :func:`rng_state` returned (parts that are absent are left alone)."""
    if "python" in state:
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words), gauss))
    if "numpy" in state:
        name, words, position, has_gauss, cached = state["numpy"]
        np.random.set_state((name, np.array(words, dtype=np.uint32), position, has_gauss, cached))
    if "torch" in state:
        torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
    if "generator" in state and generator is not None:
        generator.set_state(state["generator"].cpu())


@contextlib.contextmanager
def isolated_rng(seed: int | None = None) -> Iterator[None]:
    """Whatever happens inside leaves the global generators as they were; with ``seed`` it also starts from a fixed state."""
    before = rng_state()
    try:
        if seed is not None:
            seed_everything(seed)
        yield
    finally:
        set_rng_state(before)
