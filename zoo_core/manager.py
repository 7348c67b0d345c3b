"""Importing one plugin, guarded: validate everything first, then commit; on any failure nothing of it remains."""

from __future__ import annotations

import importlib
import sys
import traceback
from types import ModuleType
from typing import Any

import pluggy

from zoo_core import hookspecs
from zoo_core.discovery import Plugin
from zoo_core.errors import MissingDependencyError, PluginLoadError, SpecError, ZooError
from zoo_core.names import near_misses
from zoo_core.specs import KINDS, ConformanceSpec, Spec

HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("zoo_"))


class PluginManager:
    """pluggy's manager plus a table of the specs that every active plugin gave."""

    def __init__(self) -> None:
        self.pluggy = pluggy.PluginManager("zoo")
        self.pluggy.add_hookspecs(hookspecs)
        self._specs: dict[str, dict[str, dict[str, Spec]]] = {}

    def specs(self, plugin: str, kind: str) -> dict[str, Spec]:
        """Name -> spec, of one kind and one active plugin."""
        return self._specs.get(plugin, {}).get(kind, {})

    def conformance(self, plugin: str) -> list[ConformanceSpec]:
        """What the conformance kit may use for an active plugin."""
        return list(self._call(plugin, "zoo_conformance"))

    def doctor(self, plugin: str) -> list[tuple[str, str, str]]:
        """The plugin's own checks; one that raises becomes a failed check."""
        try:
            return [(str(level), str(what), str(hint)) for level, what, hint in self._call(plugin, "zoo_doctor")]
        except (Exception, SystemExit) as error:
            return [("fail", f"{plugin}: its zoo_doctor hook raised {last_line(error)}", "report it to the plugin's author")]

    def activate(self, plugin: Plugin) -> None:
        """Import the entry-point module, call its hooks, check every spec, and only then keep them.

        ``Exception`` and ``SystemExit`` are caught; ``KeyboardInterrupt`` passes.

        Raises:
            PluginLoadError: With the original as cause; the plugin is then ``broken``.
            MissingDependencyError: A package that the plugin requires is absent.
        """
        before = set(sys.modules)
        module: ModuleType | None = None
        try:
            module = importlib.import_module(plugin.module)
            self._check_hooks(module, plugin)
            self.pluggy.register(module, plugin.name)
            specs = {kind: self._collect(plugin, kind, cls) for kind, cls in KINDS.items()}
        except (Exception, SystemExit) as error:
            self._roll_back(plugin, module, before)
            self._refuse(plugin, error)
        except BaseException:
            self._roll_back(plugin, module, before)
            raise
        self._specs[plugin.name] = specs
        provides = plugin.fragment.get("provides", {})
        for kind, found in specs.items():
            listed = set(provides.get(kind, ()))
            plugin.remarks += [
                f"registry.yaml does not list {kind} {name!r}, so it is not found by name" for name in sorted(set(found) - listed) if kind != "models"
            ]
            plugin.remarks += [f"registry.yaml lists {kind} {name!r}, which its hooks do not return" for name in sorted(listed - set(found))]
        plugin.state = "loaded"

    def _call(self, plugin: str, hook: str) -> list[Any]:
        result: list[Any] = []
        for implementation in getattr(self.pluggy.hook, hook).get_hookimpls():
            if implementation.plugin_name == plugin:
                result += implementation.function() or []
        return result

    def _check_hooks(self, module: ModuleType, plugin: Plugin) -> None:
        for name, value in vars(module).items():
            marked = getattr(value, "zoo_impl", None) is not None and callable(value)
            if marked and name not in HOOKS and not value.zoo_impl.get("optionalhook"):
                close = near_misses(name, HOOKS, 1)
                raise SpecError(
                    f"{plugin.module} implements the hook {name!r}, which does not exist",
                    tried=[f"did you mean: {close[0]}"] if close else [],
                    fix="see zoo_core/hookspecs.py",
                    plugin=plugin.name,
                )
            if not marked and name in HOOKS and callable(value) and getattr(value, "__module__", "") == module.__name__:
                plugin.remarks.append(f"{plugin.module}.{name} has the name of a hook but no @hookimpl, so it is never called")

    def _collect(self, plugin: Plugin, kind: str, cls: type[Spec]) -> dict[str, Spec]:
        found: dict[str, Spec] = {}
        for spec in self._call(plugin.name, f"zoo_{kind}"):
            if not isinstance(spec, cls):
                raise SpecError(
                    f"plugin {plugin.name!r}: hook zoo_{kind} returned {type(spec).__name__}",
                    fix=f"return a list of {cls.__name__}",
                    plugin=plugin.name,
                    kind=kind,
                )
            if spec.name in found:
                raise SpecError(f"plugin {plugin.name!r}: {kind} {spec.name!r} is registered twice", fix="give one of them another name", plugin=plugin.name)
            found[spec.name] = spec
        return found

    def _roll_back(self, plugin: Plugin, module: ModuleType | None, before: set[str]) -> None:
        if module is not None and self.pluggy.is_registered(module):
            self.pluggy.unregister(module)
        self._specs.pop(plugin.name, None)
        for name in set(sys.modules) - before:
            if name == plugin.package or name.startswith(f"{plugin.package}."):
                del sys.modules[name]

    def _refuse(self, plugin: Plugin, error: BaseException) -> None:
        plugin.state, plugin.error = "broken", error
        plugin.reason = error.what if isinstance(error, ZooError) else last_line(error)
        if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != plugin.package:
            from zoo_core.discovery import missing_module

            plugin.error = missing_module(plugin, error)
            raise plugin.error from error
        if isinstance(error, MissingDependencyError):
            raise error
        raise PluginLoadError(
            f"plugin {plugin.name!r} ({plugin.distribution} {plugin.version}) could not be loaded: {plugin.reason}",
            tried=[
                *(error.tried if isinstance(error, ZooError) else [where(error, plugin.package)]),
                "nothing of it was registered; other plugins are not affected",
            ],
            fix=(error.fix if isinstance(error, ZooError) else None) or f"pip install --upgrade {plugin.distribution}, or zoo plugins disable {plugin.name}",
            plugin=plugin.name,
        ) from error


def last_line(error: BaseException) -> str:
    """The last line of the traceback: type and message."""
    return traceback.format_exception_only(error)[-1].strip()


def where(error: BaseException, package: str) -> str:
    """The innermost frame in the plugin's own code, as ``file:line``."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if package in f.filename]
    return f"raised at {frames[-1].filename}:{frames[-1].lineno}" if frames else "raised while it was imported"
