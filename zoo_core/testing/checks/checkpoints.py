"""Weights: written in a published layout and read again, strictly."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from zoo_core.specs import resolve
from zoo_core.testing.checks import check
from zoo_core.testing.checks.building import FIRST, tiny
from zoo_core.testing.results import Skipped
from zoo_core.testing.subject import Subject

NEEDS = (*FIRST, "build.tiny")


def single(subject: Subject) -> list[str]:
    """Tiny models whose weights are one module of the plugin's own."""
    names = [name for name in tiny(subject) if subject.models.get(name, {}).get("layouts")]
    if not names:
        raise Skipped("no tiny model names a checkpoint layout")
    return names


def main_module(subject: Subject, item: str) -> Any:
    parts = list(subject.handle(item).modules())
    if len(parts) != 1:
        raise Skipped(f"{item} has {len(parts)} components with parameters; the kit does not know which layout belongs to which")
    return parts[0][1]


def keymap(subject: Subject, item: str) -> Any:
    """Key map of the model's preferred layout (None: the module's own keys)."""
    layout = subject.models[item]["layouts"][0]
    spec = next((spec for spec in subject.specs("weights") if spec.name == layout), None)
    assert spec is not None, f"{item}: layout {layout!r} is not among the hook zoo_weights"
    return resolve(spec.keymap)(subject.handle(item).config) if spec.keymap else None


def reload(subject: Subject, item: str, path: Path) -> Any:
    options = {key: value for key, value in subject.options(item).items() if key not in ("weights", "seed")}
    from zoo_core.loading import load

    return load(item, device="cpu", offline=True, **{**options, "weights": str(path)})


@check("weights.round-trip", items=single, needs=NEEDS)
def round_trip(subject: Subject, item: str) -> None:
    """Saved in its preferred layout and loaded again, every tensor is the same."""
    import torch

    from zoo_core.checkpoint import save_checkpoint

    module = main_module(subject, item)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_checkpoint(module, path, keymap=keymap(subject, item))
        again = reload(subject, item, path)
        found = dict(next(iter(again.modules()))[1].state_dict())
        for key, value in module.state_dict().items():
            if isinstance(value, torch.Tensor):
                assert key in found and torch.equal(value, found[key]), f"{item}: {key} differs after saving and loading"


@check("weights.strict", items=single, needs=(*NEEDS, "weights.round-trip"))
def strict(subject: Subject, item: str) -> None:
    """A missing key, an unexpected key and a wrong shape are refused with ``CheckpointError``."""
    import torch
    from safetensors.torch import load_file, save_file

    from zoo_core.checkpoint import save_checkpoint
    from zoo_core.errors import CheckpointError

    module = main_module(subject, item)
    with tempfile.TemporaryDirectory() as folder:
        good = Path(folder) / "good.safetensors"
        save_checkpoint(module, good, keymap=keymap(subject, item))
        tensors = load_file(good)
        last = sorted(key for key in tensors if tensors[key].ndim)[-1]
        cases = {
            "missing": {key: value for key, value in tensors.items() if key != last},
            "unexpected": {**tensors, "zoo_conformance.extra": torch.zeros(3)},
            "mis-shaped": {**tensors, last: torch.cat([tensors[last], tensors[last]])},
        }
        for title, content in cases.items():
            path = Path(folder) / f"{title}.safetensors"
            save_file(content, path)
            try:
                reload(subject, item, path)
            except CheckpointError:
                continue
            raise AssertionError(
                f"{item}: a checkpoint with a {title} key ({last if title != 'unexpected' else 'zoo_conformance.extra'}) is loaded without a word"
            )
