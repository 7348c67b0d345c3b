"""Configurations: defaults of a dataclass < the model's entry (variant merged in) < a file < ``key=value``; checked by OmegaConf.

Everything is applied to a copy first: an unknown or ill-typed key raises :class:`~zoo_core.errors.ConfigError` with the nearest valid key and the
allowed type, and nothing is half-applied.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zoo_core.errors import ConfigError
from zoo_core.names import near_misses

Overrides = Iterable[str] | Mapping[str, Any] | None
"""``["encoder.depths=[0,1]", "steps=3"]`` or a mapping, whose keys may be dotted."""


def build_config(config_class: Any, *layers: Overrides, name: str = "config") -> Any:
    """A checked configuration: the class's defaults, then every layer over the ones before.

    Args:
        config_class: Dataclass, target string of one, or None for a plain mapping (its known keys and types are then those of the first layer).
        layers: Mappings, or lists of ``key=value``; None is skipped.
        name: What it is for, for messages.

    Returns:
        An instance of ``config_class``, or a dict.

    Raises:
        ConfigError: Unknown key, wrong type, malformed override.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Settings:
    ...     steps: int = 20
    >>> build_config(Settings, ["steps=3"])
    Settings(steps=3)
    >>> build_config(Settings, ["stepz=3"])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    zoo_core.errors.ConfigError: config: unknown key 'stepz'...
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(config_class, str):
        from zoo_core.specs import resolve

        config_class = resolve(config_class)
    base: dict[str, Any] = {}
    if config_class is None and layers and isinstance(layers[0], Mapping):
        base, layers = dict(layers[0]), layers[1:]
    try:
        config: Any = OmegaConf.structured(config_class) if config_class is not None else OmegaConf.create(base)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{name}: its configuration class cannot be used: {_line(error)}", fix="report it to the plugin's author") from error
    if config_class is None:
        OmegaConf.set_struct(config, True)
    for source, layer in (item for given in layers for item in override_layers(given)):
        _check_keys(config, layer, name, source)
        if config_class is None:
            _check_types(base, layer, name, source)
        try:
            config = OmegaConf.merge(config, layer)
        except OmegaConfBaseException as error:
            raise _typed(error, config, layer, name, source) from error
    try:
        return OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        key = str(getattr(error, "full_key", "") or "")
        raise ConfigError(f"{name}: {key}: {_line(error)}", fix=f"give {key}=..." if key else None, key=key) from error
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:  # raised by the dataclass's own __post_init__
        raise ConfigError(f"{name}: {_line(error)}", fix="correct the values") from error


def read_file(path: str | Path) -> dict[str, Any]:
    """A YAML or JSON file as a mapping."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {str(path)!r} cannot be read: {error}", fix="give a YAML or JSON file") from None
    if str(path).endswith(".json"):
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"{path}: not JSON: {error}", fix="correct the file") from None
    else:
        import yaml

        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: not YAML: {_line(error)}", fix="correct the file") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping, found {type(data).__name__}", fix="write key: value lines")
    return data


def override_layers(overrides: Overrides) -> list[tuple[str, dict[str, Any]]]:
    """Overrides as nested mappings, in order.

    >>> override_layers(["a.b=3", "c=[1,2]"])
    [('a.b=3', {'a': {'b': 3}}), ('c=[1,2]', {'c': [1, 2]})]
    """
    if overrides is None:
        return []
    if isinstance(overrides, str):
        overrides = [overrides]
    if isinstance(overrides, Mapping):
        return [(str(key), nested(key, value)) for key, value in overrides.items()]
    layers = []
    for text in overrides:
        key, equals, value = str(text).partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"override {text!r} is not of the form key=value", fix="write e.g. depth=3 or encoder.depths=[0,1,1]")
        layers.append((str(text), nested(key.strip(), parse_value(value))))
    return layers


def parse_value(text: str) -> Any:
    """``"3"`` -> 3, ``"[1,2]"`` -> [1, 2], ``"null"`` -> None, anything else as YAML reads it."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]  # type: ignore[call-overload, index]
    except (OmegaConfBaseException, YAMLError, ValueError):
        return text


def nested(key: str, value: Any) -> dict[str, Any]:
    """``nested("a.b", 3)`` -> ``{"a": {"b": 3}}``."""
    parts = str(key).split(".")
    if not all(parts):
        raise ConfigError(f"key {key!r} has an empty part", fix="write a.b=value")
    for part in reversed(parts):
        value = {part: value}
    return value  # type: ignore[no-any-return]


def _check_keys(config: Any, layer: Mapping[str, Any], what: str, source: str, prefix: str = "") -> None:
    from omegaconf import DictConfig, OmegaConf

    if not isinstance(config, DictConfig) or config._is_none() or not (OmegaConf.is_struct(config) or config._metadata.object_type not in (dict, None)):
        return
    known = [str(key) for key in config]
    for key, value in layer.items():
        place = f"{prefix}{key}"
        if str(key) not in known:
            close = near_misses(str(key), known)
            raise ConfigError(
                f"{what}: unknown key {place!r}",
                tried=[f"from {source}", *([f"did you mean: {', '.join(prefix + item for item in close)}"] if close else [])],
                fix=f"known keys{' of ' + prefix.rstrip('.') if prefix else ''}: {', '.join(sorted(known))}",
                key=place,
                suggestions=[prefix + item for item in close],
            )
        if isinstance(value, Mapping):
            child = config._get_node(key)
            if isinstance(child, DictConfig):
                _check_keys(child, value, what, source, f"{place}.")


def _check_types(values: Mapping[str, Any], layer: Mapping[str, Any], what: str, source: str, prefix: str = "") -> None:
    """For configurations without a class: a value keeps the type it has in the entry (a whole number may become a fraction's place)."""
    for key, value in layer.items():
        old = values.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            _check_types(old, value, what, source, f"{prefix}{key}.")
        elif old is not None and value is not None and type(old) is not type(value) and not (isinstance(old, float) and type(value) is int):
            raise ConfigError(
                f"{what}: {prefix}{key} must be {type(old).__name__}, not {type(value).__name__} {value!r}",
                tried=[f"from {source}"],
                fix=f"for example {prefix}{key}={old}",
                key=f"{prefix}{key}",
            )


def _typed(error: Exception, config: Any, layer: Mapping[str, Any], what: str, source: str) -> ConfigError:
    node: Any
    key = str(getattr(error, "full_key", "") or "")
    if not key:  # OmegaConf does not say which: the innermost single key of the layer
        node, path = layer, []
        while isinstance(node, Mapping) and len(node) == 1:
            part = next(iter(node))
            path.append(str(part))
            node = node[part]
        key = ".".join(path)
    wanted = _type_of(config, key)
    node = layer
    for part in key.replace("[", ".").replace("]", "").split("."):
        node = node.get(part) if isinstance(node, Mapping) else node[int(part)] if isinstance(node, list) and part.isdigit() and int(part) < len(node) else node
    shown = f", not {node!r}" if key else ""
    return ConfigError(
        f"{what}: {key or source} must be {wanted}{shown}" if wanted else f"{what}: {key or source}: {_line(error)}",
        tried=[f"from {source}", _line(error)],
        fix=f"give {key}=<{wanted}>" if key and wanted else "correct the value",
        key=key,
        expected=wanted,
    )


def _type_of(config: Any, key: str) -> str:
    from omegaconf import OmegaConf

    try:
        head, _, last = key.partition("[")[0].rpartition(".")
        parent = OmegaConf.select(config, head) if head else config
        node = parent._get_node(last)
        kind, optional = node._metadata.ref_type, node._metadata.optional
        if kind is Any:  # a plain value: its node knows the type
            kind = {"IntegerNode": int, "FloatNode": float, "StringNode": str, "BooleanNode": bool}.get(type(node).__name__, Any)
        name = kind.__name__ if type(kind) is type else str(kind).replace("typing.", "")
        if name == "dict" or (isinstance(kind, type) and hasattr(kind, "__dataclass_fields__")):
            name = "a mapping"
        if "[" in key and name.startswith(("List[", "list[")):
            name = name[5:-1]
        return f"{name} or null" if optional and name != "Any" else name
    except Exception:
        return ""


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
