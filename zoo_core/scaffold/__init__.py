"""``zoo new-plugin``: a project that installs, is discovered and passes the conformance kit.

The templates lie in ``template/``; ``@@name@@`` (my-paper), ``@@package@@`` (zoo_my_paper), ``@@distribution@@`` (zoo-my-paper), ``@@title@@``,
``@@series@@`` (the core's minor version) and ``@@authors@@`` are replaced; in paths ``package`` becomes the package's name.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from zoo_core.errors import InputError, NameSyntaxError

TEMPLATE = Path(__file__).parent / "template"
SUFFIX = ".tmpl"
PLUGIN_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")


def create(name: str, folder: str | Path = ".", *, author: str = "") -> Path:
    """Write a new plugin project.

    Args:
        name: Plugin name: lower-case words joined by ``-``.  A leading ``zoo-`` is dropped.
        folder: Where the project folder ``zoo-<name>`` is made.
        author: For ``pyproject.toml``; left out when empty.

    Returns:
        The project folder.  It appears complete or not at all.

    Raises:
        NameSyntaxError: The name cannot be a plugin name.
        InputError: The project folder exists, or ``folder`` does not.
    """
    name = name.removeprefix("zoo-")
    if not PLUGIN_NAME.match(name) or name in ("core", "kernels"):
        raise NameSyntaxError(f"{name!r} cannot be a plugin name", fix="lower-case words joined by '-', e.g. my-paper (not core or kernels)")
    parent = Path(folder)
    if not parent.is_dir():
        raise InputError(f"the folder {str(parent)!r} does not exist", fix=f"mkdir -p {parent}")
    project = parent / f"zoo-{name}"
    if project.exists():
        raise InputError(f"{str(project)!r} exists already", fix="choose another name or --dir")
    from zoo_core.scaffold.compilation import build

    values = replacements(name, author)
    with tempfile.TemporaryDirectory(prefix=".zoo-new-plugin-", dir=parent) as scratch:
        made = Path(scratch) / project.name
        for relative, text in files(values):
            path = made / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        build(made)
        shutil.move(made, project)
    return project


def replacements(name: str, author: str = "") -> dict[str, str]:
    """Placeholder -> text."""
    from zoo_core import __version__

    return {
        "name": name,
        "package": "zoo_" + name.replace("-", "_"),
        "distribution": f"zoo-{name}",
        "title": name.replace("-", " ").title().replace(" ", ""),
        "series": ".".join(__version__.split(".")[:2]) + ".0",
        "authors": f'authors = [{{ name = "{author}" }}]\n' if author.replace('"', "") == author and author else "",
    }


def files(values: dict[str, str]) -> Iterator[tuple[Path, str]]:
    """Relative path and text of every file of the project."""
    for source in sorted(TEMPLATE.rglob(f"*{SUFFIX}")):
        relative = source.relative_to(TEMPLATE)
        parts = [values["package"] if part == "package" else part for part in relative.parts]
        text = source.read_text(encoding="utf-8")
        for key, value in values.items():
            text = text.replace(f"@@{key}@@", value)
        yield Path(*parts).with_name(parts[-1].removesuffix(SUFFIX)), text
