"""Everything a :class:`~zoo_core.training.Trainer` needs to go on, to and from a checkpoint folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo_core.errors import TrainingError
from zoo_core.training import store
from zoo_core.training.ema import Ema
from zoo_core.training.parallel import full, like
from zoo_core.training.seeding import mix, rng_state, seed_everything, set_rng_state

if TYPE_CHECKING:
    from zoo_core.training.trainer import Trainer


def load(trainer: Trainer, path: Path) -> None:
    """Restore everything from a checkpoint folder."""
    state = store.read_state(path)
    for name, module in trainer.modules.items():
        _load_module(name, module, store.read_tensors(path, name))
    for name, optimiser in trainer.optimisers.items():
        store.restore_optimiser(optimiser, trainer.names, store.read_tensors(path, f"optimiser-{name}"), state["optimisers"].get(name, {}))
    if trainer.state.ema is not None and state["ema_updates"] is not None:
        trainer.state.ema.updates = state["ema_updates"]
        for name in trainer.state.ema.modules:
            for key, value in store.read_tensors(path, f"{name}.ema").items():
                slot = trainer.state.ema.shadow[f"{name}/{key}"]
                slot.copy_(like(value, slot))
    elif trainer.state.ema is not None:  # the first run had none: average from here on
        trainer.state.ema = Ema(trainer.state.ema.modules, trainer.state.ema.decay)
    trainer.cursor.load_state_dict(state["data"])
    trainer.state.step, trainer.state.extra = state["step"], state["extra"]
    if len(state["rng"]) == trainer.world.size:
        plain = state["rng"][trainer.world.rank]
        mine = {key.partition(".")[2]: value for key, value in store.read_tensors(path, "rng").items() if key.startswith(f"{trainer.world.rank}.")}
        set_rng_state({**plain, **mine}, trainer.state.generator)
    else:  # another number of processes: fresh but fixed states
        seed_everything(mix(trainer.config.seed, trainer.world.rank, trainer.state.step))
        trainer.state.generator.manual_seed(mix(trainer.config.seed, trainer.world.rank, trainer.state.step, 1))


def save(trainer: Trainer) -> Path:
    """Write a checkpoint of the current state (all processes must call it)."""
    state, files = trainer.state, {}
    for name, module in trainer.modules.items():
        files[name] = {key: full(value) for key, value in _unshared(module)}
    if state.ema is not None:
        for name in state.ema.modules:
            keep = files[name].keys()
            files[f"{name}.ema"] = {key: full(value) for key, value in state.ema.of(name).items() if key in keep}
    plain: dict[str, Any] = {}
    for name, optimiser in trainer.optimisers.items():
        files[f"optimiser-{name}"], plain[name] = store.optimiser_state(optimiser, trainer.names)
    generators = trainer.world.gather(rng_state(state.generator))
    path = trainer.output / "checkpoints" / f"step-{state.step:08d}"
    if trainer.world.main:
        files["rng"] = {f"{rank}.{key}": value.cpu() for rank, one in enumerate(generators) for key, value in one.items() if isinstance(value, Tensor)}
        rest = {
            "data": trainer.cursor.state_dict(),
            "ema_updates": state.ema.updates if state.ema else None,
            "optimisers": plain,
            "rng": [{key: value for key, value in one.items() if not isinstance(value, Tensor)} for one in generators],
            "extra": state.extra,
            "config": asdict(trainer.config),
        }
        store.write_checkpoint(trainer.output, state.step, files, rest, trainer.config.keep)
    trainer.world.any(False)  # nobody goes on before the files are there
    return path


def _unshared(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """State-dict entries; of tensors that are tied only the first."""
    seen: set[int] = set()
    for key, value in module.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            yield key, value.detach()


@torch.no_grad()
def _load_module(name: str, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    own = dict(_unshared(module))
    if own.keys() != tensors.keys() or any(own[key].shape != tensors[key].shape for key in own):
        differing = sorted(own.keys() ^ tensors.keys()) or [key for key in own if own[key].shape != tensors[key].shape]
        raise TrainingError(
            f"the checkpoint's {name!r} is another architecture: {', '.join(differing[:5])}",
            fix="resume with the configuration of the first run, or resume=never",
        )
    for key, value in own.items():
        value.copy_(like(tensors[key], value))
