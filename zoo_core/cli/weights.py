"""``zoo pull``, ``zoo cache``, ``zoo pack`` and ``zoo load-check``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from zoo_core.specs import ModelSpec

ProgressFlag = Annotated[str | None, typer.Option("--progress", help="bar, json (one object per line on stderr) or none; default: a bar on a terminal.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]

cache_app = typer.Typer(name="cache", help="Look after downloaded weights.", no_args_is_help=True)


def pull(
    name: Annotated[str, typer.Argument(help="Model name, as in zoo list.")],
    to: Annotated[Path | None, typer.Option("--to", help="Also copy the files to this folder, with a manifest, for a machine without network.")] = None,
    revision: Annotated[str | None, typer.Option(help="Commit, branch or tag instead of the catalogue's.")] = None,
    update: Annotated[bool, typer.Option("--update", help="Ask the hub anew what an unpinned revision is.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Only check what is here.")] = False,
    progress: ProgressFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Fetch and verify the weights of a model."""
    from zoo_core.hub import resolve_weights
    from zoo_core.hub.manage import copy_to
    from zoo_core.interfaces.weights import LoadReport

    spec, report = _spec(name), LoadReport(name=name)
    found = resolve_weights(spec, revision=revision, update=update, offline=offline or None, progress=_progress(progress), report=report)
    copies = copy_to(found, to, model=name, report=report, card=dict(spec.card)) if to is not None else []
    if as_json:
        typer.echo(
            json.dumps(
                {"model": name, "root": str(found.root), "layout": found.layout, "report": report.to_dict(), "copied": [str(path) for path in copies]}, indent=1
            )
        )
        return
    for record in report.files:
        typer.echo(f"{record.verified:18} {_size(record.size):>10}  {record.path}")
    if to is not None:
        typer.echo(f"copied {len(copies)} files to {to}; there: zoo.load({name!r}, weights={str(to)!r})")


@cache_app.command("list")
def cache_list(as_json: JsonFlag = False) -> None:
    """What is in the cache, how big it is, and when it was last used."""
    from zoo_core.hub import zoo_home
    from zoo_core.hub.manage import list_cache

    items = list_cache()
    if as_json:
        typer.echo(json.dumps({"folder": str(zoo_home()), "bytes": sum(item.size for item in items), "items": [item.to_dict() for item in items]}, indent=1))
        return
    rows = [[item.kind, item.name, item.version[:12], _size(item.size), _ago(item.used), "in use" if item.in_use else ""] for item in items]
    _table(["kind", "name", "version", ">size", "last used", ""], rows)
    typer.echo(f"{_size(sum(item.size for item in items))} in {zoo_home()}")


@cache_app.command("verify")
def cache_verify(
    names: Annotated[list[str] | None, typer.Argument(help="Repositories or distributions; default: all.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Move damaged files to quarantine; the next load fetches them again.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Hash every file again; exit code 1 when one is damaged."""
    from zoo_core.hub.manage import verify_cache

    rows = [{"path": str(path), "status": status, "detail": detail} for path, status, detail in verify_cache(names or (), repair=repair)]
    damaged = [row for row in rows if row["status"] == "damaged"]
    if as_json:
        typer.echo(json.dumps({"passed": not damaged, "files": rows}, indent=1))
    else:
        for row in rows:
            typer.echo(f"{row['status']:8} {row['path']}" + (f"\n         {row['detail']}" if row["status"] != "ok" else ""))
        typer.echo(f"{len(rows)} files, {len(damaged)} damaged" + ("; repair with: zoo cache verify --repair" if damaged and not repair else ""))
    raise typer.Exit(1 if damaged else 0)


@cache_app.command("prune")
def cache_prune(
    names: Annotated[list[str] | None, typer.Argument(help="Repositories, distributions or packed models to remove.")] = None,
    unused_days: Annotated[float | None, typer.Option(help="Also remove what was not read for so many days.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove everything.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Remove files in use too.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove leftovers (quarantined files, old partial downloads, unused blobs) and what is named."""
    from zoo_core.hub.manage import prune

    results = prune(names=names or (), unused_days=unused_days, everything=everything, dry_run=dry_run, force=force)
    freed = sum(item.size for item, outcome in results if outcome != "in use")
    if as_json:
        typer.echo(json.dumps({"bytes": freed, "items": [item.to_dict() | {"outcome": outcome} for item, outcome in results]}, indent=1))
        return
    _table(["outcome", "kind", "name", "version", ">size"], [[outcome, item.kind, item.name, item.version[:12], _size(item.size)] for item, outcome in results])
    typer.echo(f"{_size(freed)} {'would be ' if dry_run else ''}freed")


def pack(
    name: Annotated[str, typer.Argument(help="Model name, as in zoo list.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Bundle to write; default: NAME.zoo here.")] = None,
    progress: ProgressFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Put a model's weights, digests and licence into one file for a machine without network."""
    from zoo_core.hub import resolve_weights, write_pack
    from zoo_core.interfaces.weights import LoadReport

    spec, report = _spec(name), LoadReport(name=name)
    found = resolve_weights(spec, progress=_progress(progress), report=report)
    path = output if output is not None else Path(name.replace("/", "--").replace("@", "-") + ".zoo")
    sources = sorted({record.source for record in report.files if record.source})
    manifest = write_pack(
        path, model=name, files=found.files, layout=found.layout, source=", ".join(sources), licence=spec.card.get("licence") or {}, summary=spec.summary
    )
    if as_json:
        typer.echo(json.dumps({"path": str(path), "bytes": path.stat().st_size, "manifest": manifest}, indent=1, default=str))
    else:
        typer.echo(f"{path}: {len(manifest['files'])} files, {_size(path.stat().st_size)}; there: zoo.load({str(path)!r})")


def load_check(
    path: Annotated[Path, typer.Argument(help="Weights file, shard index, folder or bundle.")],
    save: Annotated[Path | None, typer.Option("--save", help="Write the tensors as this safetensors file (converts .bin, .pt and .gguf).")] = None,
    scan: Annotated[bool, typer.Option("--scan", help="Also look for NaN and infinity (reads every byte).")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Say what a file is, whether it can be loaded, and which layout and models fit.  Runs no code of the file."""
    from zoo_core.cli.load_check import describe

    facts = describe(path, scan=scan, save=save)
    if as_json:
        typer.echo(json.dumps(facts, indent=1, default=str))
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name}: {number}" for name, number in value.items())
        elif isinstance(value, list):
            value = ", ".join(str(part) for part in value[:8]) + (f", ... ({len(value)})" if len(value) > 8 else "") if value else "-"
        typer.echo(f"{key:12} {value}")


def _spec(name: str) -> ModelSpec:
    """The model's spec; from its card alone when the plugin is not installed, which is enough to fetch files."""
    from zoo_core.errors import PluginNotInstalledError
    from zoo_core.registry import get_registry
    from zoo_core.specs import ModelSpec

    registry = get_registry()
    try:
        return registry.model(name)
    except PluginNotInstalledError:
        card = registry.card(name)
        if not any(str(item.get("source", "")).startswith(("hf://", "pypi://")) for item in card.get("weights") or ()):
            raise
        return ModelSpec(name=name.partition("@")[0].partition("#")[0], task=str(card["task"]), build=str(card.get("build") or "zoo:load"), card=card)


def _progress(option: str | None) -> Any:
    from zoo_core.errors import InputError

    if option not in (None, "bar", "json", "none"):
        raise InputError(f"--progress {option!r} is unknown", fix="--progress bar, json or none")
    return option


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return ""


def _ago(when: float) -> str:
    days = (time.time() - when) / 86400
    return "today" if days < 1 else f"{days:.0f} days ago"


def _table(columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    if rows:
        Console(highlight=False, markup=False).print(table)
