"""Metadata hook of the root distribution: its dependencies, one extra per plugin folder, and ``all``.

In a checkout the extras (and the kernels package) are direct references to the folders beside this one, so that plain ``pip install ".[sana]"``
works without any index holding the plugins.  In a release they are version ranges.  A release build is one with ``ZOO_RELEASE_BUILD`` set:
``zoo_build.build_sdist`` sets it, and a wheel that is built from a source distribution takes these fields from its ``PKG-INFO`` (hatchling does so
before any hook is called).

What an extra holds comes from the plugin's own ``pyproject.toml``:

* its name is the entry point's name in the group ``zoo.plugins``;
* its requirements are the plugin, the other folders that its ``dependencies`` name, and the plugins in ``[tool.zoo] needs`` (models it asks the registry for).
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELEASE_SWITCH = "ZOO_RELEASE_BUILD"


class Member(NamedTuple):
    """A distribution of this checkout: folder, distribution name, extra (none for the kernels), names of distributions and extras it asks for."""

    folder: Path
    name: str
    extra: str | None
    dependencies: tuple[str, ...]
    needs: tuple[str, ...]


class ExtrasHook(MetadataHookInterface):
    """Fills ``dependencies`` and ``optional-dependencies``; ``[tool.hatch.metadata.hooks.custom] dependencies`` is the list written by people."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        release = bool(os.environ.get(RELEASE_SWITCH))
        here = members(Path(self.root))
        series = ".".join(str(metadata["version"]).split(".")[:2])

        def requirement(name: str) -> str:
            if name in here and not release:
                return f"{name} @ {here[name].folder.as_uri()}"
            return f"{name}~={series}.0"

        written = self.config["dependencies"]
        metadata["dependencies"] = [requirement(name) if (name := canonical(line)) in here else line for line in written]
        extras = {extra: [requirement(name) for name in names] for extra, names in requirements(here).items()}
        extras["all"] = sorted({line for lines in extras.values() for line in lines})
        metadata["optional-dependencies"] = extras


def members(root: Path) -> dict[str, Member]:
    """Distribution name -> member, for ``kernels/`` and every folder below ``plugins/`` that has a ``pyproject.toml``."""
    found = {}
    for file in [root / "kernels" / "pyproject.toml", *sorted(root.glob("plugins/*/pyproject.toml"))]:
        if not file.is_file():
            continue
        data = tomllib.loads(file.read_text(encoding="utf-8"))
        project = data["project"]
        entry_points = list(project.get("entry-points", {}).get("zoo.plugins", {}))
        if file.parent.parent.name == "plugins" and len(entry_points) != 1:
            raise ValueError(f'{file}: a plugin folder declares exactly one entry point in [project.entry-points."zoo.plugins"], found {entry_points}')
        name = canonical(project["name"])
        dependencies = tuple(canonical(line) for line in project.get("dependencies", ()))
        needs = tuple(data.get("tool", {}).get("zoo", {}).get("needs", ()))
        found[name] = Member(file.parent, name, entry_points[0] if entry_points else None, dependencies, needs)
    return found


def requirements(here: dict[str, Member]) -> dict[str, list[str]]:
    """Extra -> names of the distributions it installs, the plugin first, found transitively."""
    by_extra = {member.extra: member.name for member in here.values() if member.extra}

    def collect(name: str, seen: list[str]) -> list[str]:
        if name not in seen and name in here and here[name].extra:
            seen.append(name)
            for other in (*here[name].dependencies, *(by_extra.get(need, f"zoo-{need}") for need in here[name].needs)):
                collect(other, seen)
        return seen

    return {extra: collect(name, []) for extra, name in sorted(by_extra.items())}


def canonical(requirement: str) -> str:
    """Normalised distribution name of a requirement line.

    >>> canonical("Zoo_Kernels[triton]~=0.1.0")
    'zoo-kernels'
    """
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", name.group() if name else "").lower()
