"""``zoo train``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer


def train(
    recipe: Annotated[str | None, typer.Argument(help="Recipe, e.g. dc-ae/autoencoder; without it, the list of all.")] = None,
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that differ from the recipe's defaults.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML or JSON file of settings, below KEY=VALUE.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the resolved settings and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Train RECIPE; the same command goes on after an interruption.  Under torchrun: torchrun --nproc-per-node N -m zoo_core.cli train RECIPE ..."""
    from dataclasses import asdict

    from zoo_core.config import build_config, read_file
    from zoo_core.registry import get_registry
    from zoo_core.specs import RecipeSpec, resolve

    registry = get_registry()
    if recipe is None:
        names = registry.names("recipes")
        typer.echo(json.dumps(names, indent=1) if as_json else "\n".join(names) or "no recipe is installed")
        return
    spec = registry.get("recipes", recipe)
    assert isinstance(spec, RecipeSpec)
    layers = [read_file(config)] if config is not None else []
    checked: Any = build_config(spec.config_class, *layers, settings or [], name=f"recipe {recipe}")
    if show:
        typer.echo(json.dumps(asdict(checked), indent=1, default=str))
        return
    outcome = resolve(spec.run)(checked)
    if os.environ.get("RANK", "0") != "0":  # under torchrun one process speaks
        return
    if as_json:
        typer.echo(json.dumps(outcome, indent=1, default=str))
    elif isinstance(outcome, dict):
        for key, value in outcome.items():
            typer.echo(f"{key}: {value}")
