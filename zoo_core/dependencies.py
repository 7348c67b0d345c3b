"""Whether the packages that a plugin or a model requires are here, before anything is fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo_core import catalog
from zoo_core.errors import MissingDependencyError

if TYPE_CHECKING:
    from zoo_core.discovery import Plugin


def check_requirements(plugin: Plugin, card: dict[str, Any]) -> None:
    """Compare what the plugin's distribution (``Requires-Dist``) and the model's ``requires:`` ask for with what is installed.

    Raises:
        MissingDependencyError: Names every missing or too old package and one command that installs them all.
    """
    from importlib.metadata import PathDistribution
    from pathlib import Path

    try:
        declared = PathDistribution(Path(plugin.metadata)).requires or []
    except OSError:
        declared = []
    problems = wrong([*declared, *card.get("requires", ())])
    if problems:
        packages = " ".join(f'"{requirement}"' for requirement in problems)
        raise MissingDependencyError(
            f"model {card['name']!r} needs packages that are not here: {', '.join(problems)}",
            tried=[f"{requirement}: {state}" for requirement, state in problems.items()],
            fix=f"pip install {packages}",
            plugin=plugin.name,
            missing=list(problems),
        )


def wrong(requirements: list[str]) -> dict[str, str]:
    """Requirement -> ``"absent"`` or ``"1.2 is installed"``, for those that are not met (extras and foreign markers are left out)."""
    from importlib.metadata import PackageNotFoundError, version

    from packaging.requirements import InvalidRequirement, Requirement

    found: dict[str, str] = {}
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        shown = f"{requirement.name}{requirement.specifier}"
        try:
            have = version(requirement.name)
        except PackageNotFoundError:
            found[shown] = "absent"
            continue
        if requirement.specifier and not requirement.specifier.contains(have, prereleases=True):
            found[shown] = f"{have} is installed"
    return found


def missing_module(plugin: Plugin, error: ModuleNotFoundError) -> MissingDependencyError:
    """The error for a plugin whose module could not import a third-party package."""
    name = (error.name or "").partition(".")[0]
    return MissingDependencyError(
        f"plugin {plugin.name!r} needs the package {name!r}, which is not installed",
        tried=[f"import {error.name}: {error}"],
        fix=catalog.install_command(plugin.name, plugin.distribution) if catalog.first_party(plugin.distribution) else f"pip install {name}",
        plugin=plugin.name,
        missing=[name],
    )
