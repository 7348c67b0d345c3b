"""Which plugins are installed: entry points of the group ``zoo.plugins``, read as data.

The folders on ``sys.path`` are searched for ``*.dist-info/entry_points.txt`` directly (importing :mod:`importlib.metadata` alone costs more than the
whole scan); archives on the path go through :mod:`importlib.metadata`.  The package is found with ``find_spec`` on its *top-level* name, which imports
nothing, and the fragment in it is read.  No plugin code runs here.  Last part: whether the packages that a plugin or a model requires are installed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from zoo_core import fragment as fragments
from zoo_core.errors import MissingDependencyError, SpecError
from zoo_core.settings import Settings, read_settings

GROUP = "zoo.plugins"
API_VERSION = 1
"""The plugin API of this core; the same number as :data:`zoo_core.specs.API_VERSION`."""
STATES = ("found", "blocked", "incompatible", "broken", "loaded")


@dataclass(slots=True)
class Plugin:
    """An installed plugin and what became of it.

    Attributes:
        name: Entry-point name (= extra name).
        module: Entry-point module with the hooks.
        distribution: Normalised distribution name.
        state: One of :data:`STATES`.
        reason: Why it is blocked, incompatible or broken (one line).
        remarks: Things ``zoo doctor`` should tell.
        fragment: Its checked ``registry.json``.
        folder: The package's folder.
        metadata: The ``*.dist-info`` folder.
    """

    name: str
    module: str
    distribution: str
    version: str
    metadata: str
    state: str = "found"
    reason: str = ""
    error: BaseException | None = None
    remarks: list[str] = field(default_factory=list)
    fragment: dict[str, Any] = field(default_factory=dict)
    folder: str = ""

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    @property
    def usable(self) -> bool:
        return self.state in ("found", "loaded")

    @property
    def origin(self) -> str:
        """Where the distribution was installed from (PEP 610), as text."""
        record = direct_url(self.metadata)
        if record is None:
            return "package index"
        url = str(record.get("url", ""))
        return (f"{url} (editable)" if record.get("dir_info", {}).get("editable") else url) or "package index"


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """One line of an ``entry_points.txt``."""

    name: str
    module: str
    distribution: str
    version: str
    metadata: str


def normalised(name: str) -> str:
    """Distribution name as PEP 503 writes it.

    >>> normalised("Zoo_DC.ae")
    'zoo-dc-ae'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def version_key(version: str) -> tuple[Any, ...]:
    """Order of versions, good enough to tell a stale duplicate from the new one (a release sorts above its pre-releases)."""
    release, _, rest = re.match(r"([0-9.]*)(-*)(.*)", version).groups() if version else ("", "", "")  # type: ignore[union-attr]
    numbers = tuple(int(part) for part in release.split(".") if part)
    return numbers, not rest.startswith(("a", "b", "rc", ".dev", "dev")), rest


def entry_points(path: Iterable[str] | None = None) -> list[EntryPoint]:
    """All entry points of our group on ``path`` (default ``sys.path``), in path order."""
    found: list[EntryPoint] = []
    seen: set[str] = set()
    for folder in sys.path if path is None else path:
        folder = folder or os.getcwd()
        key = os.path.realpath(folder)
        if key in seen:
            continue
        seen.add(key)
        try:
            names = sorted(os.listdir(folder))
        except NotADirectoryError:
            found += _from_archive(folder)
            continue
        except OSError:
            continue
        for name in names:
            if not name.endswith((".dist-info", ".egg-info")):
                continue
            metadata = os.path.join(folder, name)
            try:
                with open(os.path.join(metadata, "entry_points.txt"), encoding="utf-8") as file:
                    text = file.read()
            except (OSError, UnicodeDecodeError):
                continue
            if GROUP in text:
                distribution, _, version = name.rpartition(".")[0].partition("-")
                found += [EntryPoint(plugin, module, normalised(distribution), version.partition("-")[0], metadata) for plugin, module in _lines(text)]
    return found


def _lines(text: str) -> list[tuple[str, str]]:
    inside, result = False, []
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("["):
            inside = line.strip("[] ") == GROUP
        elif inside and "=" in line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            result.append((name.strip(), value.partition(":")[0].partition("[")[0].strip()))
    return result


def _from_archive(path: str) -> list[EntryPoint]:
    if not os.path.isfile(path) or not path.endswith((".zip", ".whl", ".egg", ".pyz")):
        return []
    from importlib.metadata import distributions

    result = []
    for dist in distributions(path=[path]):
        for entry in dist.entry_points.select(group=GROUP):
            module = entry.value.partition(":")[0].strip()
            result.append(EntryPoint(entry.name, module, normalised(dist.metadata["Name"]), dist.version, str(getattr(dist, "_path", path))))
    return result


def discover(settings: Settings | None = None, path: Iterable[str] | None = None) -> dict[str, Plugin]:
    """Plugin name -> plugin, sorted by name.  Faults of one plugin are recorded on it and never raised."""
    settings = read_settings() if settings is None else settings
    chosen: dict[str, Plugin] = {}
    for entry in entry_points(path):
        plugin = Plugin(entry.name, entry.module, entry.distribution, entry.version, entry.metadata)
        other = chosen.get(entry.name)
        if other is not None:
            plugin = _duplicate(other, plugin)
        chosen[entry.name] = plugin
    for plugin in chosen.values():
        if plugin.state == "found":
            _examine(plugin, settings)
    return dict(sorted(chosen.items()))


def _duplicate(first: Plugin, second: Plugin) -> Plugin:
    """Two entry points with one name: the newest of one distribution (a stale ``dist-info`` after an upgrade), or neither of two distributions."""
    if first.distribution == second.distribution:
        new, old = (second, first) if version_key(second.version) > version_key(first.version) else (first, second)
        new.remarks = [*first.remarks, f"{old.distribution} {old.version} is also listed at {old.metadata}; {new.version} is used: remove the stale folder"]
        return new
    first.state, first.reason = (
        "broken",
        (f"two distributions bring a plugin of this name: {first.distribution} and {second.distribution}; uninstall one of them"),
    )
    return first


def _examine(plugin: Plugin, settings: Settings) -> None:
    blocked = settings.blocked(plugin.name, plugin.distribution)
    if blocked:
        plugin.state, plugin.reason = "blocked", blocked
        return
    try:
        folder = package_folder(plugin.package)
        if folder is None:
            raise SpecError(f"package {plugin.package!r} of {plugin.distribution} is not found", fix=f"pip install --force-reinstall {plugin.distribution}")
        plugin.folder = folder
        plugin.fragment, remarks = fragments.read(folder)
        plugin.remarks += remarks
        for key, actual in (("plugin", plugin.name), ("package", plugin.package)):
            if plugin.fragment[key] != actual:
                raise SpecError(f"{folder}: {key} is {plugin.fragment[key]!r}, the entry point says {actual!r}", fix="make both the same", key=key)
        api = plugin.fragment.get("api", API_VERSION)
        if api != API_VERSION:
            side = "the plugin" if api < API_VERSION else "zoo-core"
            plugin.state = "incompatible"
            plugin.reason = f"made for plugin API {api}, this zoo-core has plugin API {API_VERSION}: upgrade {side}"
    except SpecError as error:
        plugin.state, plugin.reason, plugin.error = "broken", error.what, error


def package_folder(package: str) -> str | None:
    """Folder of a top-level package, without importing it."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError, AttributeError):
        return None
    locations = list(spec.submodule_search_locations or ()) if spec is not None else []
    return locations[0] if locations else None


def direct_url(metadata: str) -> dict[str, Any] | None:
    """The PEP 610 record of a distribution (installed from a folder, URL or repository), or None when it came from an index."""
    import json

    try:
        with open(os.path.join(metadata, "direct_url.json"), encoding="utf-8") as file:
            data = json.load(file)
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


# -- required packages -------------------------------------------------------------------------------------------------------


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
    from zoo_core import catalog

    name = (error.name or "").partition(".")[0]
    return MissingDependencyError(
        f"plugin {plugin.name!r} needs the package {name!r}, which is not installed",
        tried=[f"import {error.name}: {error}"],
        fix=catalog.install_command(plugin.name, plugin.distribution) if catalog.first_party(plugin.distribution) else f"pip install {name}",
        plugin=plugin.name,
        missing=[name],
    )
