"""The user's own settings: which plugins are on, and who owns a name that two plugins claim.

They stand in ``$ZOO_CONFIG``, else ``$XDG_CONFIG_HOME/zoo/config.json``, else ``~/.config/zoo/config.json``:

    {"plugins": {"only": ["sana", "dc-ae"], "disable": ["broken-one"]},
     "prefer": {"models/some-name": "zoo-that-distribution"}}

``ZOO_PLUGINS=sana,dc-ae`` (an empty value: none) and ``ZOO_PLUGINS_DISABLE=broken-one`` go before the file.  ``zoo plugins enable|disable|prefer`` write it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any

from zoo_core.errors import ConfigError

SHAPE: dict[str, dict[str, type]] = {"plugins": {"only": list, "disable": list}, "prefer": {}}


def settings_path() -> str:
    """Where the settings file is or would be."""
    if os.environ.get("ZOO_CONFIG"):
        return os.path.expanduser(os.environ["ZOO_CONFIG"])
    return os.path.join(os.path.expanduser(os.environ.get("XDG_CONFIG_HOME") or "~/.config"), "zoo", "config.json")


@dataclass(frozen=True, slots=True)
class Settings:
    """What is allowed and preferred.

    Attributes:
        only: Plugins (names or distributions) that may be used; None allows all.
        disable: Plugins that may not.
        prefer: ``"kind/name"`` -> plugin or distribution that owns the name.
        only_from, disable_from: Where the lists were set, for messages.
    """

    only: frozenset[str] | None = None
    disable: frozenset[str] = frozenset()
    prefer: dict[str, str] = field(default_factory=dict)
    only_from: str = ""
    disable_from: str = ""

    def blocked(self, plugin: str, distribution: str) -> str:
        """Why the plugin is switched off, or ""."""
        if plugin in self.disable or distribution in self.disable:
            return f"switched off by {self.disable_from}"
        if self.only is not None and not {plugin, distribution} & self.only:
            return f"not in {self.only_from}"
        return ""


def read_settings() -> Settings:
    """Environment over file.  Raises ConfigError naming file, key and expected type."""
    data = read_file()
    plugins = data.get("plugins", {})
    only: frozenset[str] | None = frozenset(plugins["only"]) if "only" in plugins else None
    disable = frozenset(plugins.get("disable", ()))
    path = settings_path()
    only_from, disable_from = f"plugins.only of {path}", f"plugins.disable of {path}"
    if "ZOO_PLUGINS" in os.environ:
        only, only_from = names(os.environ["ZOO_PLUGINS"]), f"ZOO_PLUGINS={os.environ['ZOO_PLUGINS']}"
    if os.environ.get("ZOO_PLUGINS_DISABLE"):
        disable, disable_from = disable | names(os.environ["ZOO_PLUGINS_DISABLE"]), f"ZOO_PLUGINS_DISABLE or {disable_from}"
    return Settings(only, disable, dict(data.get("prefer", {})), only_from, disable_from)


def read_file() -> dict[str, Any]:
    """The settings file as plain data ({} when there is none)."""
    path = settings_path()
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"settings file {path} cannot be read: {error}", fix=f"correct or delete {path}") from None
    wrong = _wrong(data)
    if wrong:
        raise ConfigError(f"settings file {path}: {wrong}", fix="see `zoo plugins --help` for its form")
    return dict(data)


def _wrong(data: Any) -> str:
    if not isinstance(data, dict):
        return f"expected an object, found {type(data).__name__}"
    for key, value in data.items():
        if key not in SHAPE:
            return f"unknown key {key!r} (known: {', '.join(SHAPE)})"
        if not isinstance(value, dict):
            return f"{key}: expected an object, found {type(value).__name__}"
    for key, value in data.get("plugins", {}).items():
        if key not in SHAPE["plugins"]:
            return f"unknown key plugins.{key} (known: only, disable)"
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            return f"plugins.{key}: expected a list of names"
    for key, value in data.get("prefer", {}).items():
        if not isinstance(value, str):
            return f"prefer.{key}: expected a plugin name, found {type(value).__name__}"
    return ""


def change(plugin: str, *, enabled: bool) -> str:
    """Switch a plugin on or off in the settings file (written whole, then renamed); returns the file's path."""
    data = read_file()
    plugins = data.setdefault("plugins", {})
    disabled = [name for name in plugins.get("disable", []) if name != plugin]
    if not enabled:
        disabled.append(plugin)
    elif "only" in plugins and plugin not in plugins["only"]:
        plugins["only"] = [*plugins["only"], plugin]
    plugins["disable"] = disabled
    return _write(data)


def prefer(key: str, owner: str) -> str:
    """Give ``"kind/name"`` to ``owner`` in the settings file; returns the file's path."""
    data = read_file()
    data.setdefault("prefer", {})[key] = owner
    return _write(data)


def _write(data: dict[str, Any]) -> str:
    path = settings_path()
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1)
        file.write("\n")
    os.replace(temporary, path)
    return path


def names(text: str) -> frozenset[str]:
    """Comma- or space-separated names.

    >>> sorted(names("sana, dc-ae"))
    ['dc-ae', 'sana']
    """
    return frozenset(text.replace(",", " ").split())
