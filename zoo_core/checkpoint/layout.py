"""Which published layout a checkpoint has, judged by its keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from zoo_core.errors import CheckpointError
from zoo_core.specs import WeightsSpec


def fits(keys: Iterable[str], spec: WeightsSpec) -> bool:
    """Whether each of the spec's ``detect`` expressions is found in at least one key."""
    keys = list(keys)
    return bool(spec.detect) and all(any(re.search(pattern, key) for key in keys) for pattern in spec.detect)


def detect_layout(keys: Iterable[str], layouts: Mapping[str, WeightsSpec]) -> str:
    """The name of the one layout that fits ``keys``; a single layout without ``detect`` fits everything.

    Raises:
        CheckpointError: None or several fit.

    >>> detect_layout(["encoder.a"], {"mine": WeightsSpec(name="mine", detect=(r"^encoder\\.",))})
    'mine'
    """
    keys = list(keys)
    if len(layouts) == 1:
        ((name, only),) = layouts.items()
        if not only.detect:
            return name
    found = [name for name, spec in layouts.items() if fits(keys, spec)]
    if len(found) == 1:
        return found[0]
    sample = ", ".join(keys[:4]) + (f", ... ({len(keys)} keys)" if len(keys) > 4 else "")
    if found:
        raise CheckpointError(
            f"the checkpoint fits several layouts: {', '.join(found)}", tried=[f"keys: {sample}"], fix="make the detect patterns of these layouts exclusive"
        )
    tried = [
        f"{name}: no key matches {next((p for p in spec.detect if not any(re.search(p, k) for k in keys)), '(nothing to detect by)')!r}"
        for name, spec in layouts.items()
    ]
    raise CheckpointError("the checkpoint has none of the known layouts", tried=[*tried, f"keys: {sample}"], fix="zoo load-check PATH says which model fits")
