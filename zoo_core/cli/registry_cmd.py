"""``zoo registry``: for authors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from zoo_core.errors import InputError

registry_app = typer.Typer(help="For authors: build the catalogue from the fragments, pin published revisions.", no_args_is_help=True, add_completion=False)


@registry_app.command()
def build(
    folder: Annotated[Path | None, typer.Argument(help="Checkout of the zoo, or a plugin's project folder [default: the one around here].")] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 when a file is stale.")] = False,
) -> None:
    """Compile every registry.yaml to registry.json, and in a checkout of the zoo write the merged catalogue."""
    from zoo_core.scaffold import compilation

    stale = compilation.build(_root(folder), check=check)
    for path in stale:
        print(f"{'stale' if check else 'wrote'} {path}")
    if not stale:
        print("everything is up to date")
    raise typer.Exit(1 if check and stale else 0)


@registry_app.command()
def check(folder: Annotated[Path | None, typer.Argument(help="Checkout or plugin project.")] = None) -> None:
    """Check the fragments against the schema and tell when a compiled file is stale; exit code 1 then."""
    build(folder, check=True)


@registry_app.command()
def pin(
    name: Annotated[str, typer.Argument(help="Model whose hf:// sources shall get commit, sizes and SHA-256.")],
    folder: Annotated[Path | None, typer.Option("--dir", help="Checkout or plugin project that holds the fragment.")] = None,
    revision: Annotated[str | None, typer.Option(help="Commit, branch or tag to pin [default: main].")] = None,
) -> None:
    """Ask the hub for commit and digests of every file and write them into the fragment (comments are kept)."""
    from zoo_core.scaffold import compilation
    from zoo_core.scaffold.compilation import pin_model

    root = _root(folder)
    for line in pin_model(root, name, revision=revision):
        print(line)
    for path in compilation.build(root):
        print(f"wrote {path}")


def _root(folder: Path | None) -> Path:
    from zoo_core.scaffold.compilation import checkout

    if folder is not None:
        if not folder.is_dir():
            raise InputError(f"{str(folder)!r} is not a folder", fix="give a checkout of the zoo or a plugin's project folder")
        return folder
    here = Path.cwd()
    if list(here.glob("*/registry.yaml")) and not (here / "zoo_core").is_dir():
        return here
    root: Any = checkout()
    if root is None:
        raise InputError("no checkout of the zoo and no plugin project here", fix="zoo registry build FOLDER")
    return Path(root)
