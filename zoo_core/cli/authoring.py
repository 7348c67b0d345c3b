"""``zoo new-plugin`` and ``zoo conformance``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def new_plugin(
    name: Annotated[str, typer.Argument(help="Plugin name, e.g. my-paper; the package becomes zoo_my_paper.")],
    folder: Annotated[Path, typer.Option("--dir", help="Folder in which the project folder is made.")] = Path("."),
    author: Annotated[str, typer.Option("--author", help="Name for pyproject.toml and the licence.")] = "",
) -> None:
    """Make a plugin project that installs, is discovered and passes the conformance kit."""
    from zoo_core.scaffold import create

    project = create(name, folder, author=author)
    typer.echo(f"made {project}")
    typer.echo(f"next: pip install -e {project} && pytest {project} --zoo-plugin {name}")


def conformance(
    plugin: Annotated[str, typer.Argument(help="An installed plugin, e.g. my-paper.")],
    only: Annotated[list[str] | None, typer.Option("--only", metavar="PATTERN", help="Only checks whose names match, e.g. 'metadata.*' (repeatable).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    show_badge: Annotated[bool, typer.Option("--badge", help="Print the Markdown block for the plugin's README.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show passed and skipped checks too.")] = False,
) -> None:
    """Check a plugin against the contracts; exit code 1 when something is wrong."""
    from zoo_core.testing.results import CheckResult, badge, counts, to_json
    from zoo_core.testing.runner import run_checks
    from zoo_core.testing.subject import Subject

    subject = Subject(plugin)
    results: list[CheckResult] = []
    for result in run_checks(subject, only=only or ()):
        results.append(result)
        if not (as_json or show_badge) and (verbose or not result.ok):
            typer.echo(f"{result.status:>16}  {result.id}" + (f": {result.message}" if result.message else ""))
    if as_json:
        typer.echo(to_json(subject.name, results))
    elif show_badge:
        typer.echo(badge(subject.name, results))
    else:
        number = {status: count for status, count in counts(results).items() if count}
        typer.echo(f"{subject.name}: " + (", ".join(f"{count} {status}" for status, count in number.items()) or "nothing was checked"))
    raise typer.Exit(0 if all(result.ok for result in results) else 1)
