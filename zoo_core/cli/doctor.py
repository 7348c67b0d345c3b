"""``zoo doctor``: what is wrong with this installation, and what to do about it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import NamedTuple

from zoo_core import catalog
from zoo_core.errors import ZooError
from zoo_core.registry import ZooRegistry, get_registry
from zoo_core.settings import settings_path


class Finding(NamedTuple):
    """``level`` is ``ok``, ``warn`` or ``fail``."""

    level: str
    what: str
    hint: str = ""


REQUIRED = ("torch", "numpy", "safetensors", "omegaconf", "pluggy", "huggingface-hub", "pyyaml", "pillow", "rich", "typer", "zoo-kernels")


def examine(*, activate: bool = True) -> Iterator[Finding]:
    """Look at everything; ``activate`` also imports every plugin's entry-point module (not its models)."""
    yield Finding("ok", f"python {sys.version.split()[0]} at {sys.prefix}")
    yield from packages()
    yield from modules()
    yield from catalogue()
    try:
        registry = get_registry()
    except ZooError as error:
        yield Finding("fail", error.what, error.fix or "")
        return
    yield Finding("ok", f"settings: {settings_path()}" + ("" if os.path.exists(settings_path()) else " (none)"))
    yield from plugins(registry, activate)
    yield from caches()
    yield from machine()


def packages() -> Iterator[Finding]:
    """Versions of what the core needs, and broken requirements of the core itself."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from zoo_core.discovery import wrong

    found = []
    for name in REQUIRED:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            yield Finding("fail", f"{name} is not installed", f"pip install {name}")
    yield Finding("ok", ", ".join(found))
    try:
        declared = requires("zoo-core") or []
    except PackageNotFoundError:
        yield Finding("warn", "zoo-core runs from a folder without being installed", "pip install -e . in that folder")
        return
    for requirement, state in wrong(declared).items():
        if "is installed" in state:
            yield Finding("fail", f"zoo-core needs {requirement}, {state}", f'pip install "{requirement}"')


def modules() -> Iterator[Finding]:
    """Modules that hide ours, or that ours could hide."""
    import zoo_core

    spec = find_spec("zoo")
    if spec is None or spec.origin is None:
        yield Finding("fail", "the module 'zoo' is not found", "pip install --force-reinstall zoo-core")
    else:
        try:
            with open(spec.origin, encoding="utf-8") as file:
                ours = "zoo_core" in file.read()
        except OSError:
            ours = False
        if not ours:
            yield Finding("fail", f"another package owns the name 'zoo': {spec.origin}", "pip uninstall zoo, then pip install --force-reinstall zoo-core")
        else:
            yield Finding("ok", f"zoo_core {zoo_core.__version__} at {os.path.dirname(zoo_core.__file__)}")
    kernels = find_spec("kernels")
    if kernels is not None and kernels.origin is None:
        folders = ", ".join(kernels.submodule_search_locations or ())
        yield Finding("ok", f"'kernels' is only a folder on the path ({folders}), not a package: harmless")
    elif kernels is not None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            yield Finding("ok", f"the published package kernels {version('kernels')} is installed; ours is zoo_kernels")
        except PackageNotFoundError:
            yield Finding(
                "warn", f"a module named 'kernels' at {kernels.origin} hides the published package of that name", "rename it, or remove its __init__.py"
            )


def catalogue() -> Iterator[Finding]:
    """The shipped data files."""
    try:
        yield Finding("ok", f"catalogue: {len(catalog.cards())} models of {len(catalog.catalogue())} plugins")
    except ZooError as error:
        yield Finding("fail", error.what, "pip install --force-reinstall zoo-core")


def plugins(registry: ZooRegistry, activate: bool) -> Iterator[Finding]:
    """State of every plugin, its remarks, its own checks, contested names."""
    for plugin in registry.plugins().values():
        problem: ZooError | None = None
        if activate and plugin.state == "found":
            try:
                registry.activate(plugin.name)
            except ZooError as error:
                problem = error
        label = f"plugin {plugin.name} ({plugin.distribution} {plugin.version})"
        if plugin.state == "blocked":
            yield Finding("warn", f"{label}: {plugin.reason}", f"zoo plugins enable {plugin.name}")
        elif plugin.usable:
            yield Finding("ok", f"{label}: {plugin.state}, {len(plugin.fragment.get('models', ()))} models")
        else:
            hint = (problem.fix if problem else getattr(plugin.error, "fix", None)) or f"pip install --upgrade {plugin.distribution}"
            yield Finding("fail", f"{label}: {plugin.state}: {plugin.reason}", hint)
        for remark in dict.fromkeys(plugin.remarks):
            yield Finding("warn", f"{label}: {remark}")
        if plugin.usable and activate:
            for level, what, hint in registry.manager.doctor(plugin.name):
                yield Finding(level if level in ("ok", "warn", "fail") else "warn", f"{plugin.name}: {what}", hint)
    for name, owners in registry.conflicts().items():
        yield Finding("fail", f"{name} is claimed by {' and '.join(owners)}", f"zoo plugins prefer {name} {owners[0]}")


def caches() -> Iterator[Finding]:
    """Cache folders: writable, room, offline."""
    from zoo_core.hub.cache import free_bytes, huggingface_cache, is_offline, zoo_home

    home = zoo_home()
    existing = home
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    free = free_bytes(home)
    if not os.access(existing, os.W_OK):
        yield Finding("warn", f"the cache {home} cannot be written", "set ZOO_HOME to a folder you may write to; weights that are there are still used")
    elif free < 2 << 30:
        yield Finding("warn", f"the cache {home} has only {free / 1e9:.1f} GB of room", "zoo cache prune, or set ZOO_HOME to a bigger disk")
    else:
        yield Finding("ok", f"cache: {home} ({free / 1e9:.0f} GB free); also read: {huggingface_cache()}")
    if is_offline():
        yield Finding("warn", "offline: ZOO_OFFLINE or HF_HUB_OFFLINE is set; nothing will be fetched")


def machine() -> Iterator[Finding]:
    """Cores, memory, accelerators."""
    try:
        from zoo_core.devices import describe

        facts = describe()
    except Exception as error:
        yield Finding("fail", f"torch cannot be imported: {error}", "pip install --force-reinstall torch")
        return
    yield Finding("ok", f"machine: {facts['cores']} cores, {facts['memory_bytes'] / 1e9:.0f} GB memory ({facts['available_bytes'] / 1e9:.0f} GB free)")
    for place in facts["accelerators"]:
        yield Finding("ok", f"{place['device']}: {place['name']}, {place['memory_bytes'] / 1e9:.0f} GB")
