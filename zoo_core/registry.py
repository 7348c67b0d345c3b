"""What can be had by name: :func:`get_registry` gives the process-wide :class:`ZooRegistry` over all plugins.

Names come from data (the plugins' fragments and the shipped catalogue); a plugin's code is imported by :mod:`zoo_core.manager` when one of its things
is wanted.  The generic table is :class:`zoo_core.tables.Registry`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zoo_core import catalog, discovery
from zoo_core import fragment as fragments
from zoo_core.discovery import Plugin
from zoo_core.errors import SpecError, UnknownModelError, UnknownNameError
from zoo_core.names import Reference, near_misses, parse
from zoo_core.settings import Settings, read_settings
from zoo_core.tables import Registry, not_installed, not_released, raise_state, unknown

if TYPE_CHECKING:
    from zoo_core.manager import PluginManager
    from zoo_core.specs import ModelSpec, Spec

CORE = "zoo-core"


class ZooRegistry:
    """All plugins of this environment and everything they provide.  Use :func:`get_registry`."""

    def __init__(self, settings: Settings | None = None, path: list[str] | None = None) -> None:
        self.settings = read_settings() if settings is None else settings
        self._plugins = discovery.discover(self.settings, path)
        self._lock = threading.RLock()
        self._manager: PluginManager | None = None
        self._cards: Registry[dict[str, Any]] = Registry("models", prefer=self._preferences("models"))
        self._names: dict[str, Registry[Plugin | None]] = {}
        for plugin in self._plugins.values():
            if plugin.usable:
                self._claim_models(plugin)
        for name, card in catalog.cards().items():  # a first-party name belongs to its distribution also where that is not installed
            for label in (name, *card.get("aliases", ())):
                if label in self._cards and card["distribution"] not in [claim.owner for claim in self._cards._claims[label]]:
                    self._cards.register(label, {**card, "installed": False}, owner=card["distribution"], origin="catalogue of zoo-core")

    def _preferences(self, kind: str) -> dict[str, str]:
        prefix = f"{kind}/"
        owners = {plugin.name: plugin.distribution for plugin in self._plugins.values()}
        return {key.removeprefix(prefix): owners.get(owner, owner) for key, owner in self.settings.prefer.items() if key.startswith(prefix)}

    def _claim_models(self, plugin: Plugin) -> None:
        for name, card in fragments.entries(plugin.fragment):
            for label in (name, *card.get("aliases", ())):
                if label in self._cards and any(claim.owner == plugin.distribution for claim in self._cards._claims[label]):
                    plugin.remarks.append(f"the name {label!r} stands twice in its registry.yaml; the first is used")
                    continue
                self._cards.register(label, {**card, "installed": True}, owner=plugin.distribution, origin=plugin.folder)

    # -- plugins -------------------------------------------------------------------------------------------------------------

    def plugins(self) -> dict[str, Plugin]:
        """Installed plugins by name, whatever their state."""
        return dict(self._plugins)

    @property
    def manager(self) -> PluginManager:
        """The plugin manager (imports pluggy at the first use)."""
        with self._lock:
            if self._manager is None:
                from zoo_core.manager import PluginManager

                self._manager = PluginManager()
            return self._manager

    def plugin(self, name: str) -> Plugin:
        """An installed plugin that may be used (its code need not be imported yet).

        Raises:
            PluginNotInstalledError, PluginBlockedError, IncompatiblePluginError, PluginLoadError, UnknownNameError.
        """
        found = self._plugins.get(name) or next((item for item in self._plugins.values() if item.distribution == name), None)
        if found is None:
            if name in catalog.catalogue():
                raise not_installed(f"plugin {name!r}", name)
            if name in catalog.papers():
                raise not_released(f"plugin {name!r}", name)
            known = [*self._plugins, *catalog.catalogue()]
            suggestions = near_misses(name, known)
            tried = [f"did you mean: {', '.join(suggestions)}"] if suggestions else []
            raise UnknownNameError(f"plugin {name!r} is unknown", tried=tried, fix="zoo plugins shows what is installed", suggestions=suggestions)
        raise_state(found)
        return found

    def activate(self, name: str) -> Plugin:
        """Import a plugin's entry-point module, guarded, and register what its hooks return."""
        plugin = self.plugin(name)
        if plugin.state != "loaded":
            with self._lock:
                if plugin.state != "loaded":
                    self.manager.activate(plugin)
        return plugin

    def _refuse_unusable(self, has: Callable[[dict[str, Any]], bool]) -> None:
        """A name that only a broken or incompatible plugin has is answered with that plugin's error."""
        for plugin in self._plugins.values():
            if not plugin.usable and has(plugin.fragment):
                raise_state(plugin)

    # -- models --------------------------------------------------------------------------------------------------------------

    def models(self, *, installed: bool | None = None) -> dict[str, dict[str, Any]]:
        """Model name -> card, sorted: installed plugins' models and those of the catalogue.  ``card["installed"]`` tells which."""
        result: dict[str, dict[str, Any]] = {}
        conflicts = self._cards.conflicts()
        for name in self._cards:
            if name in conflicts:
                continue
            card = self._cards.get(name)
            if card["name"] == name:
                result[name] = card
        for name, card in catalog.cards().items():
            if name not in result and name not in conflicts:
                result[name] = {**card, "installed": False}
        return {name: card for name, card in sorted(result.items()) if installed is None or card["installed"] == installed}

    def conflicts(self, *kinds: str) -> dict[str, list[str]]:
        """``"kind/name"`` -> distributions that claim it, for the given kinds (default: all whose names are global)."""
        tables = {kind: self._cards if kind == "models" else self._table(kind) for kind in kinds or fragments.KIND_NAMES if kind != "parity"}
        return {f"{kind}/{name}": owners for kind, table in tables.items() for name, owners in table.conflicts().items()}

    def card(self, name: str | Reference) -> dict[str, Any]:
        """The catalogue entry of a model, installed or not, with its variant merged in.

        Raises:
            UnknownModelError, PluginConflictError, PluginNotInstalledError (announced papers), ConfigError (variant).
        """
        ref = parse(name) if isinstance(name, str) else name
        if ref.name in self._cards:
            card = self._cards.get(ref.name)
        elif ref.name in catalog.cards() or ref.name in catalog.aliases():
            card = {**catalog.cards()[catalog.aliases().get(ref.name, ref.name)], "installed": False}
        elif ref.name in catalog.announced():
            self._refuse_unusable(lambda fragment: ref.name in fragment.get("models", {}))
            raise not_released(f"model {ref.name!r}", catalog.announced()[ref.name])
        else:
            self._refuse_unusable(lambda fragment: ref.name in fragment.get("models", {}))
            raise unknown("models", ref.name, [*self._cards, *catalog.cards(), *catalog.aliases(), *catalog.announced()])
        return with_variant(card, ref.variant)

    def model(self, name: str | Reference) -> ModelSpec:
        """Spec of a model of an installed, usable plugin (alias and variant resolved).

        Raises:
            UnknownModelError, PluginNotInstalledError, PluginBlockedError, IncompatiblePluginError, PluginLoadError, PluginConflictError.
        """
        from zoo_core.specs import ModelSpec

        ref = parse(name) if isinstance(name, str) else name
        if ref.name not in self._cards and self._owners("models", ref.name):
            spec = self._registered("models", ref.name, None)
            assert isinstance(spec, ModelSpec)
            return spec
        card = self.card(ref)
        if not card["installed"]:
            if card["plugin"] in self._plugins:
                raise_state(self._plugins[card["plugin"]])
            raise not_installed(f"model {ref.name!r}", card["plugin"], card["distribution"])
        return ModelSpec(
            name=card["name"],
            summary=card.get("summary", ""),
            task=card["task"],
            build=card["build"],
            config_class=card.get("config_class"),
            config=card.get("config") or {},
            layouts=tuple(card.get("layouts") or ()),
            card=card,
            variants=card.get("variants") or {},
        )

    # -- everything else -----------------------------------------------------------------------------------------------------

    def names(self, kind: str) -> list[str]:
        """Names of one kind that installed plugins and the core provide, sorted; nothing is imported from plugins."""
        kind = kind_of(kind)
        return list(self.models(installed=True)) if kind == "models" else list(self._table(kind))

    def _owners(self, kind: str, name: str) -> list[str]:
        return [claim.owner for claim in self._table(kind)._claims.get(name, ())]

    def _table(self, kind: str) -> Registry[Plugin | None]:
        with self._lock:
            if kind not in self._names:
                table: Registry[Plugin | None] = Registry(kind, prefer=self._preferences(kind))
                for name in _core_specs(kind):
                    table.register(name, None, owner=CORE, origin=CORE)
                for plugin in self._plugins.values():
                    if plugin.usable:
                        for name in dict.fromkeys(plugin.fragment.get("provides", {}).get(kind, ())):
                            table.register(name, plugin, owner=plugin.distribution, origin=plugin.folder)
                self._names[kind] = table
            return self._names[kind]

    def get(self, kind: str, name: str, *, plugin: str | None = None) -> Spec:
        """The spec ``name`` of one kind (see :data:`zoo_core.specs.KINDS`); imports the plugin that owns it.

        Args:
            plugin: Only look there; needed for kinds whose names belong to their plugin (``parity``) when several have the name.

        Raises:
            UnknownNameError, PluginNotInstalledError, PluginConflictError, PluginLoadError...
        """
        kind = kind_of(kind)
        if kind == "models":
            return self.model(name)
        return self._registered(kind, name, plugin)

    def _registered(self, kind: str, name: str, plugin: str | None) -> Spec:
        table = self._table(kind)
        if plugin is not None:
            owner: Plugin | None = self.activate(plugin)
            assert owner is not None
            specs = self.manager.specs(owner.name, kind)
            if name not in specs:
                raise unknown(kind, name, specs)
            return specs[name]
        if name not in table:
            self._refuse_unusable(lambda fragment: name in fragment.get("provides", {}).get(kind, ()))
            for fragment in catalog.catalogue().values():
                if name in fragment.get("provides", {}).get(kind, ()):
                    if fragment["plugin"] in self._plugins:
                        raise_state(self._plugins[fragment["plugin"]])
                    raise not_installed(f"{kind.removesuffix('s')} {name!r}", fragment["plugin"], fragment["distribution"])
            raise unknown(kind, name, table)
        owner = table.get(name)
        if owner is None:
            return _core_specs(kind)[name]
        self.activate(owner.name)
        specs = self.manager.specs(owner.name, kind)
        if name not in specs:
            raise SpecError(
                f"plugin {owner.name!r} lists {kind} {name!r} in its registry.yaml, but its hook zoo_{kind} does not return it",
                fix=f"correct {owner.distribution}",
                plugin=owner.name,
            )
        return specs[name]

    def build(self, kind: str, name: str, **options: Any) -> Any:
        """Build a part by kind and name: a component of that kind, a tokenizer, cache, sampler, evaluator; else the model of that name (through ``zoo.load``).

        >>> registry.build("autoencoder", "dc-ae-f32c32-sana-1.1", device="cpu")  # doctest: +SKIP
        """
        from zoo_core.specs import KINDS, resolve

        plural = kind if kind in KINDS else f"{kind}s"
        if plural in KINDS and plural != "models":
            spec: Any = self.get(plural, name)
            return resolve(spec.build)(**options)
        if plural != "models" and name in self._table("components"):
            component: Any = self.get("components", name)
            if component.kind != kind:
                raise UnknownNameError(f"component {name!r} is a {component.kind}, not a {kind}", fix=f"registry.build({component.kind!r}, {name!r})")
            return resolve(component.build)(**options)
        from zoo_core.loading import load

        return load(name, **options)


def _core_specs(kind: str) -> dict[str, Spec]:
    """What the core itself registers."""
    if kind == "evaluators":
        from zoo_core.evaluation.builtin import SPECS

        return {spec.name: spec for spec in SPECS}
    return {}


def kind_of(kind: str) -> str:
    """``"sampler"`` or ``"samplers"`` -> ``"samplers"``."""
    for candidate in (kind, f"{kind}s"):
        if candidate in fragments.KIND_NAMES:
            return candidate
    raise UnknownNameError(f"kind {kind!r} is unknown", fix=f"one of {', '.join(fragments.KIND_NAMES)}", suggestions=near_misses(kind, fragments.KIND_NAMES))


def with_variant(card: dict[str, Any], variant: str | None) -> dict[str, Any]:
    """The card with a variant's parts merged in."""
    if variant is None:
        return card
    variants = card.get("variants") or {}
    if variant not in variants:
        known = ", ".join(sorted(variants)) or "none"
        suggestions = near_misses(variant, variants)
        tried = [f"did you mean: {', '.join(suggestions)}"] if suggestions else []
        raise UnknownModelError(f"model {card['name']!r} has no variant {variant!r}", tried=tried, fix=f"its variants: {known}", suggestions=suggestions)
    return {**fragments.merged(card, variants[variant]), "variant": variant}


_lock = threading.RLock()
_registry: ZooRegistry | None = None


def get_registry(*, refresh: bool = False) -> ZooRegistry:
    """The process-wide registry; ``refresh=True`` looks for plugins again (after an installation in a running notebook)."""
    global _registry
    with _lock:
        if _registry is None or refresh:
            _registry = ZooRegistry()
        return _registry


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    if _registry is not None:
        _registry._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
