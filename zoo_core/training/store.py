"""Checkpoints: one folder each, safetensors for every tensor, JSON for the rest, published by one rename.

checkpoints/step-00001000/
    state.json                     step, data position, generators, scalars of the optimisers, the recipe's extra data, the configuration
    <module>.safetensors           weights under the module's own keys
    <module>.ema.safetensors       averaged weights (float32), when EMA is on
    optimiser-<name>.safetensors   "<module>/<parameter>/<entry>"
    rng.safetensors                generator states
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zoo_core.errors import NoSpaceError, TrainingError
from zoo_core.training.parallel import full, like

SCHEMA = 1
_NAME = re.compile(r"step-(\d{8,})\Z")


def checkpoints(output: Path) -> list[Path]:
    """Complete checkpoints of a run folder, oldest first."""
    folder = output / "checkpoints"
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.match(path.name)) and (path / "state.json").exists()]
    return [path for _, path in sorted(found)]


def latest_checkpoint(output: str | os.PathLike[str]) -> Path | None:
    """The newest complete checkpoint of a run folder (or the folder itself when it is one)."""
    path = Path(output)
    if (path / "state.json").exists():
        return path
    found = checkpoints(path)
    return found[-1] if found else None


def load_weights(output: str | os.PathLike[str], module: str, *, ema: bool | None = None) -> dict[str, Tensor]:
    """Weights of one module from a run or checkpoint folder.

    Args:
        ema: True for the averaged weights, False for the raw ones, None for the averaged ones when there are any.
    """
    path = latest_checkpoint(output)
    if path is None:
        raise TrainingError(f"{output} holds no checkpoint", fix="give a run folder or one of its checkpoints")
    averaged = path / f"{module}.ema.safetensors"
    file = averaged if ema or (ema is None and averaged.exists()) else path / f"{module}.safetensors"
    if not file.exists():
        raise TrainingError(f"checkpoint {path} has no {file.name}", tried=[p.name for p in sorted(path.iterdir())], fix="name one of its modules")
    return load_file(file)


def write_checkpoint(output: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep: int) -> Path:
    """Write the files of one checkpoint, then rename the folder into place; afterwards remove all but the newest ``keep`` (0: keep all)."""
    folder = output / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{step:08d}"
    temporary = folder / f".{final.name}.{os.getpid()}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        for name, group in tensors.items():
            save_file({key: value.contiguous() for key, value in group.items()}, temporary / f"{name}.safetensors", metadata={"format": "pt"})
        (temporary / "state.json").write_text(json.dumps({"schema": SCHEMA, "step": step, **state}, indent=1), encoding="utf-8")
        for path in temporary.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if final.exists():  # the same step again, e.g. after an evaluation-only resume
            shutil.rmtree(final)
        temporary.rename(final)
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno == 28:
            raise NoSpaceError(
                f"no room for checkpoint {final}", fix="free some space; training goes on from the previous checkpoint with the same command"
            ) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in checkpoints(output)[:-keep] if keep else []:
        with contextlib.suppress(OSError):
            (old / "state.json").unlink()  # first, so that a half-removed folder is no checkpoint
            shutil.rmtree(old)
    return final


def read_state(path: Path) -> dict[str, Any]:
    """``state.json`` of a checkpoint."""
    try:
        state: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"checkpoint {path} is damaged: {error}", fix="remove the folder; the previous checkpoint is used then") from error
    if state.get("schema") != SCHEMA:
        raise TrainingError(f"checkpoint {path} has schema {state.get('schema')!r}, this version reads {SCHEMA}", fix="resume with the version that wrote it")
    return state


def read_tensors(path: Path, name: str) -> dict[str, Tensor]:
    """One safetensors file of a checkpoint."""
    try:
        return load_file(path / f"{name}.safetensors")
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"checkpoint {path}: cannot read {name}.safetensors: {error}", fix="remove the folder; the previous checkpoint is used then"
        ) from error


# -- optimisers --------------------------------------------------------------------------------------------------------------


def parameter_names(modules: Mapping[str, nn.Module]) -> dict[int, str]:
    """``id(parameter)`` -> ``"module/parameter"``."""
    return {id(p): f"{name}/{key}" for name, module in modules.items() for key, p in module.named_parameters()}


_GROUPS = "(groups)"


def optimiser_state(optimiser: torch.optim.Optimizer, names: Mapping[int, str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State as named whole tensors and plain data.

    Of the parameter groups only what the optimiser itself keeps there (a step counter, say) is state; settings such as learning rate and weight decay come
    from the configuration, so that they may be changed on resume.
    """
    tensors: dict[str, Tensor] = {}
    settings = {"params", "initial_lr", *optimiser.defaults}
    plain: dict[str, Any] = {_GROUPS: [{key: value for key, value in group.items() if key not in settings} for group in optimiser.param_groups]}
    for parameter, state in optimiser.state.items():
        name = names[id(parameter)]
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{name}/{key}"] = full(value)
            else:
                plain.setdefault(name, {})[key] = value
    return tensors, plain


def restore_optimiser(
    optimiser: torch.optim.Optimizer, names: Mapping[int, str], tensors: Mapping[str, Tensor], plain: Mapping[str, Mapping[str, Any]]
) -> None:
    """Inverse of :func:`optimiser_state`; refuses state of parameters that the optimiser does not have."""
    parameters = {names[id(p)]: p for group in optimiser.param_groups for p in group["params"]}
    states: dict[str, dict[str, Any]] = {name: dict(entries) for name, entries in plain.items() if name != _GROUPS}
    groups: Any = plain.get(_GROUPS, ())
    for group, kept in zip(optimiser.param_groups, groups, strict=False):
        for entry, value in kept.items():
            group[entry] = value
    for key, value in tensors.items():
        name, _, entry = key.rpartition("/")
        states.setdefault(name, {})[entry] = value
    unknown = sorted(states.keys() - parameters.keys())
    if unknown:
        raise TrainingError(
            f"the checkpoint's optimiser knows parameters that this model lacks: {', '.join(unknown[:5])}", fix="resume with the configuration of the first run"
        )
    for name, entries in states.items():
        parameter = parameters[name]
        optimiser.state[parameter] = {
            entry: (value if value.dim() == 0 else like(value, parameter)) if isinstance(value, Tensor) else value for entry, value in entries.items()
        }
