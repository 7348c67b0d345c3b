"""The plugin under test: where it lies, what it declares, its specs and its tiny models.

The kit looks at the installed distribution itself (entry point, data files, metadata) and not through the registry, so that it can explain what the
registry refuses.  A property that cannot be had raises :class:`Skipped`, because exactly one check owns each cause: ``metadata.fragment`` owns an
unreadable fragment, ``imports.plugin`` a module that raises, ``build.tiny`` a model that does not build.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo_core.errors import InputError, PluginNotInstalledError, ZooError
from zoo_core.specs import KINDS, ConformanceSpec, Spec
from zoo_core.testing.results import Skipped

ENTRY_POINTS = "zoo.plugins"


def find(name: str) -> tuple[str, importlib.metadata.EntryPoint]:
    """Plugin name and entry point for ``my-paper``, ``my_paper``, ``zoo-my-paper`` or ``zoo_my_paper``.

    Raises:
        PluginNotInstalledError: No installed distribution declares it.
    """
    found = {entry.name: entry for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    dashed = name.replace("_", "-")
    for candidate in (name, dashed, dashed.removeprefix("zoo-")):
        if candidate in found:
            return candidate, found[candidate]
    raise PluginNotInstalledError(
        f"plugin {name!r} is not installed in this environment",
        tried=[f"entry points of the group {ENTRY_POINTS!r}: {', '.join(sorted(found)) or 'none'}"],
        fix="pip install -e FOLDER_OF_THE_PLUGIN",
    )


class Subject:
    """One installed plugin; everything is looked up when first used and then kept."""

    def __init__(self, name: str) -> None:
        self.name, self.entry_point = find(name)
        self.module_name = self.entry_point.value.partition(":")[0].strip()
        self.package = self.module_name.partition(".")[0]
        if self.entry_point.dist is None:
            raise InputError(f"plugin {name!r}: its entry point belongs to no distribution")
        self.distribution = self.entry_point.dist
        self._handles: dict[str, Any] = {}
        self._problems: dict[str, str] = {}

    # -- data files ----------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def folder(self) -> Path:
        """The package's folder (found without importing it)."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise Skipped(f"the package {self.package!r} is not found")
        return Path(next(iter(spec.submodule_search_locations)))

    @functools.cached_property
    def source(self) -> Path | None:
        """The project folder when the plugin is installed from a checkout (editable), else None."""
        for parent in (self.folder.parent, self.folder.parent.parent):
            if (parent / "pyproject.toml").is_file():
                return parent
        return None

    def read(self, name: str) -> dict[str, Any]:
        """``registry.yaml`` or ``registry.json`` as plain data; raises whatever goes wrong."""
        text = (self.folder / name).read_text(encoding="utf-8")
        if name.endswith(".json"):
            data = json.loads(text)
        else:
            import yaml

            data = yaml.safe_load(text)
        assert isinstance(data, dict), f"{name} holds a {type(data).__name__}, not a mapping"
        return data

    @functools.cached_property
    def fragment(self) -> dict[str, Any]:
        """The fragment as written by people."""
        try:
            return self.read("registry.yaml")
        except Exception as error:
            raise Skipped(f"registry.yaml cannot be read ({type(error).__name__})") from None

    @property
    def models(self) -> dict[str, dict[str, Any]]:
        """Model name -> entry, with the fragment's ``defaults`` merged below."""
        defaults = self.fragment.get("defaults") or {}
        models = self.fragment.get("models") or {}
        if not isinstance(models, dict):
            raise Skipped("'models' of registry.yaml is no mapping")
        return {name: merged(defaults, entry) for name, entry in models.items() if isinstance(entry, dict)}

    # -- code ----------------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def probe(self) -> dict[str, Any]:
        """What importing the plugin does, observed in a fresh interpreter (see :mod:`zoo_core.testing.probe`)."""
        paths = [path for path in sys.path if path]
        command = [sys.executable, "-c", "from zoo_core.testing.probe import main; main()"]
        order = json.dumps({"module": self.module_name, "path": paths})
        environment = {**_environment(), "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        done = subprocess.run(command, input=order, text=True, capture_output=True, env=environment, timeout=600)
        lines = [line for line in done.stdout.splitlines() if line.startswith("ZOO-PROBE ")]
        if not lines:
            return {"crash": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
        result: dict[str, Any] = json.loads(lines[-1].removeprefix("ZOO-PROBE "))
        return result

    @functools.cached_property
    def hooks(self) -> dict[str, list[Any]]:
        """Hook name without ``zoo_`` -> what it returned (in this process)."""
        if self.probe.get("crash") or self.probe.get("plugin_error"):
            raise Skipped("the plugin module cannot be imported")
        module = importlib.import_module(self.module_name)
        found: dict[str, list[Any]] = {}
        for attribute, value in vars(module).items():
            if attribute.startswith("zoo_") and callable(value) and getattr(value, "zoo_impl", None) is not None and attribute != "zoo_post_load":
                found[attribute.removeprefix("zoo_")] = list(value() or [])
        return found

    def specs(self, kind: str) -> list[Any]:
        """Specs of one kind that the hooks gave."""
        return [spec for spec in self.hooks.get(kind, []) if isinstance(spec, Spec)]

    @functools.cached_property
    def targets(self) -> dict[str, str]:
        """``"kind name.field"`` -> target, of every spec and model entry."""
        found = {}
        for kind in KINDS:
            for spec in self.specs(kind):
                for field in type(spec).__dataclass_fields__.values():
                    value = getattr(spec, field.name)
                    if field.metadata.get("target") and value:
                        found[f"{kind} {spec.name}.{field.name}"] = value
        for name, entry in self.models.items():
            for key in ("build", "config_class"):
                if isinstance(entry.get(key), str):
                    found[f"models {name}.{key}"] = entry[key]
        return found

    @functools.cached_property
    def conformance(self) -> ConformanceSpec:
        """The plugin's declarations for the kit (merged when it gives several)."""
        tiny: dict[str, Mapping[str, Any]] = {}
        declared: dict[str, str] = {}
        for spec in self.hooks.get("conformance", []):
            tiny |= dict(spec.tiny)
            declared |= dict(spec.expected_failures)
        return ConformanceSpec(name=self.name, tiny=tiny, expected_failures=declared)

    # -- models --------------------------------------------------------------------------------------------------------------

    def tiny_models(self) -> list[str]:
        """Models with a declared tiny form (keys with a colon, ``"cache:duo"``, are options of other parts)."""
        return [name for name in self.conformance.tiny if ":" not in name]

    def small_models(self) -> list[str]:
        """Models that can be run here: those with a tiny form, and those whose weights are embedded."""
        names = self.tiny_models()
        return names + [name for name, entry in self.models.items() if entry.get("status") == "embedded" and name not in names]

    def options(self, name: str) -> dict[str, Any]:
        """Options for ``zoo.load`` that make the model small (without the ``call`` part)."""
        options = {key: value for key, value in self.conformance.tiny.get(name, {}).items() if key != "call"}
        return {"weights": "random", "seed": 0, **options} if name in self.conformance.tiny else options

    def call(self, name: str) -> dict[str, Any]:
        """Options for the task method that keep it short, e.g. ``{"steps": 2}``."""
        return dict(self.conformance.tiny.get(name, {}).get("call", {}))

    def load(self, name: str, **options: Any) -> Any:
        """``zoo.load`` of the small form on the CPU; never from the network."""
        from zoo_core.loading import load

        return load(name, **{"device": "cpu", "offline": True, **self.options(name), **options})

    def handle(self, name: str) -> Any:
        """The small form, built once."""
        if name in self._problems:
            raise Skipped(self._problems[name])
        if name not in self._handles:
            try:
                self._handles[name] = self.load(name)
            except Exception as error:
                first = str(error).splitlines()[0] if str(error) else type(error).__name__
                self._problems[name] = f"{name} does not build ({first})"
                raise Skipped(self._problems[name]) from None
        return self._handles[name]

    def task(self, name: str) -> str:
        return str(self.models.get(name, {}).get("task", ""))


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``; mappings are merged, everything else is replaced."""
    result = dict(below)
    for key, value in above.items():
        result[key] = merged(result[key], value) if isinstance(value, Mapping) and isinstance(result.get(key), Mapping) else value
    return result


def user_error(error: BaseException) -> bool:
    """Whether an exception is one that a caller may be given for a bad argument."""
    return isinstance(error, (ZooError, ValueError, TypeError))


def _environment() -> dict[str, str]:
    import os

    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "COV_CORE_SOURCE")}
