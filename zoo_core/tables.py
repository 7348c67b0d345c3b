"""The generic table of names, and the errors about names and plugins that it and :mod:`zoo_core.registry` raise."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from zoo_core import catalog
from zoo_core.errors import (
    IncompatiblePluginError,
    PluginBlockedError,
    PluginConflictError,
    PluginError,
    PluginLoadError,
    PluginNotInstalledError,
    SpecError,
    UnknownModelError,
    UnknownNameError,
    ZooError,
)
from zoo_core.names import near_misses

if TYPE_CHECKING:
    from zoo_core.discovery import Plugin

T = TypeVar("T")


@dataclass(slots=True)
class _Claim(Generic[T]):
    value: T | None
    target: str | None
    owner: str
    origin: str


class Registry(Generic[T]):
    """Names of one kind, each with an owner.  Thread-safe.

    A value may be a target ``"package.module:attribute"`` (with ``lazy=True``): it is imported at the first :meth:`get`.
    Two owners may claim a name; whoever asks for it is then refused with both named, unless ``prefer`` says who has it.

    >>> table = Registry("samplers")
    >>> table.register("euler", "math:sqrt", owner="zoo-a", lazy=True)
    >>> table.get("euler")(9.0)
    3.0
    """

    def __init__(self, kind: str, *, prefer: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self.frozen = False
        self._prefer = dict(prefer or {})
        self._claims: dict[str, list[_Claim[T]]] = {}
        self._lock = threading.RLock()

    def register(self, name: str, value: T | str, *, owner: str, origin: str = "", lazy: bool = False) -> None:
        """Claim ``name`` for ``owner``.  Raises SpecError when frozen or when the owner has claimed it already."""
        with self._lock:
            if self.frozen:
                raise SpecError(f"the table of {self.kind} is frozen: {name!r} cannot be added", fix="register before the table is frozen", name=name)
            claims = self._claims.setdefault(name, [])
            if any(claim.owner == owner for claim in claims):
                raise SpecError(f"{owner} registers {self.kind} {name!r} twice", fix="give one of them another name", name=name, plugin=owner)
            claims.append(_Claim(None, str(value), owner, origin) if lazy else _Claim(value, None, owner, origin))  # type: ignore[arg-type]
            claims.sort(key=lambda claim: claim.owner)

    def discard(self, owner: str) -> None:
        """Remove everything that ``owner`` has."""
        with self._lock:
            for name in list(self._claims):
                self._claims[name] = [claim for claim in self._claims[name] if claim.owner != owner]
                if not self._claims[name]:
                    del self._claims[name]

    def freeze(self) -> None:
        """Refuse further registration."""
        self.frozen = True

    def _claim(self, name: str) -> _Claim[T]:
        claims = self._claims.get(name)
        if not claims:
            raise unknown(self.kind, name, self._claims)
        if len(claims) == 1:
            return claims[0]
        wanted = self._prefer.get(name)
        chosen = [claim for claim in claims if claim.owner == wanted]
        if chosen:
            return chosen[0]
        raise conflict(self.kind, name, [(claim.owner, claim.origin) for claim in claims])

    def get(self, name: str) -> T:
        """The value.  Raises UnknownNameError (with ``suggestions``) or PluginConflictError."""
        with self._lock:
            claim = self._claim(name)
            if claim.target is not None:
                from zoo_core.specs import resolve

                claim.value, claim.target = resolve(claim.target), None
            return claim.value  # type: ignore[return-value]

    def owner(self, name: str) -> str:
        return self._claim(name).owner

    def origin(self, name: str) -> str:
        """Where it was registered: ``file:line`` or a distribution."""
        return self._claim(name).origin

    def conflicts(self) -> dict[str, list[str]]:
        """Name -> owners, for names that several claim and nobody decided."""
        return {
            name: [claim.owner for claim in claims]
            for name, claims in self._claims.items()
            if len(claims) > 1 and self._prefer.get(name) not in {claim.owner for claim in claims}
        }

    def __contains__(self, name: object) -> bool:
        return name in self._claims

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._claims))

    def __len__(self) -> int:
        return len(self._claims)


def unknown(kind: str, name: str, known: Any) -> UnknownNameError:
    """The error for a name that nobody has, with at most five near misses."""
    suggestions = near_misses(name, known)
    cls = UnknownModelError if kind == "models" else UnknownNameError
    tried = [f"did you mean: {', '.join(suggestions)}"] if suggestions else []
    command = "zoo list" if kind == "models" else "zoo plugins --provides"
    noun = {"models": "model", "parity": "parity kind", "weights": "layout"}.get(kind, kind.removesuffix("s"))
    return cls(f"{noun} {name!r} is unknown", tried=tried, fix=f"{command} shows what there is", suggestions=suggestions, name=name)


def conflict(kind: str, name: str, owners: list[tuple[str, str]]) -> PluginConflictError:
    """The refusal of a name that several distributions claim."""
    shown = [f"{owner}{f' ({origin})' if origin and origin != owner else ''}" for owner, origin in owners]
    return PluginConflictError(
        f"{kind} name {name!r} is claimed by {' and '.join(owner for owner, _ in owners)}",
        tried=shown,
        fix=f"zoo plugins prefer {kind}/{name} {owners[0][0]} (or another of them), or uninstall one",
        owners=[owner for owner, _ in owners],
        name=name,
    )


def not_installed(what: str, plugin: str, distribution: str = "") -> PluginNotInstalledError:
    """The catalogue knows it; the plugin is absent."""
    distribution = distribution or catalog.catalogue().get(plugin, {}).get("distribution", f"zoo-{plugin}")
    return PluginNotInstalledError(
        f"{what} is provided by the plugin {plugin!r} ({distribution}), which is not installed",
        fix=catalog.install_command(plugin, distribution),
        plugin=plugin,
        distribution=distribution,
    )


def not_released(what: str, plugin: str) -> UnknownModelError:
    """The paper belongs to the project, but this release has no plugin for it."""
    paper = catalog.papers()[plugin]
    return UnknownModelError(
        f"{what} belongs to {paper['title'].partition(':')[0]!r} (arXiv {paper['arxiv']}), whose plugin {plugin!r} is not part of this release",
        fix=f"when {paper['distribution']} is published: {catalog.install_command(plugin, paper['distribution'])}",
        suggestions=[],
        plugin=plugin,
    )


def raise_state(plugin: Plugin) -> None:
    """Raise the error that says why a plugin cannot be used, if so."""
    label = f"plugin {plugin.name!r} ({plugin.distribution} {plugin.version})"
    fields = {"plugin": plugin.name, "distribution": plugin.distribution}
    error: PluginError
    if plugin.state == "blocked":
        error = PluginBlockedError(f"{label} is {plugin.reason}", fix=f"zoo plugins enable {plugin.name}, or change the variable", **fields)
    elif plugin.state == "incompatible":
        error = IncompatiblePluginError(f"{label} is incompatible: {plugin.reason}", fix=f"pip install --upgrade {plugin.distribution} zoo-core", **fields)
    elif plugin.state == "broken":
        if isinstance(plugin.error, ZooError) and not isinstance(plugin.error, PluginError):
            raise plugin.error
        error = PluginLoadError(f"{label} is broken: {plugin.reason}", fix=getattr(plugin.error, "fix", None) or "zoo doctor", **fields)
    else:
        return
    raise error from plugin.error
