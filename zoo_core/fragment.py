"""A plugin's ``registry.json`` (compiled from ``registry.yaml``): reading it, checking it, and the model entries in it.

Nothing here imports the plugin or YAML, except when the YAML beside the compiled file is newer in content (a developer's checkout): then the YAML is read.
Errors name the file, the key path and the expected type (:class:`~zoo_core.errors.SpecError`).
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from zoo_core.errors import SpecError

SCHEMA = 1
MAX_BYTES = 8 << 20
SOURCE_KEY = "compiled_from"
"""Key of the compiled file that holds the fingerprint of the YAML it was made from."""

TEXT, NUMBER, FLAG, MAPPING, SEQUENCE = (str,), (int, float), (bool,), (dict,), (list,)
TOP: dict[str, tuple[type, ...]] = {
    "schema": (int,), "plugin": TEXT, "distribution": TEXT, "package": TEXT, "api": (int,), "paper": MAPPING, "provides": MAPPING,
    "recognises": SEQUENCE, "defaults": MAPPING, "models": MAPPING, SOURCE_KEY: TEXT,
}  # fmt: skip
MODEL: dict[str, tuple[type, ...]] = {
    "task": TEXT, "summary": TEXT, "aliases": SEQUENCE, "status": TEXT, "parameters": NUMBER, "build": TEXT, "config_class": TEXT, "config": MAPPING,
    "layouts": SEQUENCE, "weights": SEQUENCE, "licence": MAPPING, "precision": MAPPING, "memory": MAPPING, "defaults": MAPPING, "run": MAPPING,
    "trained": MAPPING, "tags": SEQUENCE, "variants": MAPPING, "requires": SEQUENCE, "reported": MAPPING, "paper": MAPPING, "notes": (str, list),
    "links": MAPPING, "limits": (str, list, dict), "languages": SEQUENCE, "options": MAPPING, "base": TEXT, "kernels": MAPPING,
}  # fmt: skip
STRINGS = ("aliases", "layouts", "tags", "requires")
WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "a mapping", list: "a list", type(None): "nothing"}


def fingerprint(content: bytes) -> str:
    """Short fingerprint of a YAML source; tells an edited file from the one that was compiled (not a defence against anybody)."""
    return f"{zlib.crc32(content):08x}-{len(content)}"


def read(folder: str) -> tuple[dict[str, Any], list[str]]:
    """The fragment in a package folder and remarks about it (a stale compiled file).

    Raises:
        SpecError: No fragment, too big, not JSON, wrong type, unknown field.
    """
    compiled, source = os.path.join(folder, "registry.json"), os.path.join(folder, "registry.yaml")
    content = _bytes(compiled)
    if content is None:
        text = _bytes(source)
        if text is None:
            raise SpecError(f"{compiled} is missing", fix="zoo registry build (in the plugin's checkout), or reinstall the plugin", file=compiled)
        return check(from_yaml(text, source), source), ["registry.json is missing; registry.yaml was read instead (slow): zoo registry build"]
    data = parse(content, compiled)
    made_from = data.get(SOURCE_KEY) if isinstance(data, dict) else None
    if made_from:
        text = _bytes(source)
        if text is not None and fingerprint(text) != made_from:
            return check(from_yaml(text, source), source), ["registry.json is older than registry.yaml, which was read instead (slow): zoo registry build"]
    return check(data, compiled), []


def _bytes(path: str) -> bytes | None:
    try:
        if os.path.getsize(path) > MAX_BYTES:
            raise SpecError(f"{path} is larger than {MAX_BYTES >> 20} MiB", fix="a registry fragment holds data about models, not the models", file=path)
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}", fix="correct its permissions or reinstall the plugin", file=path) from None


def parse(content: bytes, path: str) -> Any:
    """JSON with the place of an error."""
    try:
        return json.loads(content)
    except RecursionError:
        raise SpecError(f"{path} is nested too deeply", fix="reinstall the plugin", file=path) from None
    except ValueError as error:
        raise SpecError(f"{path} is not JSON: {error}", fix="zoo registry build, or reinstall the plugin", file=path) from None


def from_yaml(content: bytes, path: str) -> Any:
    """YAML as plain data that JSON can hold (safe loader; an unquoted date stays text)."""
    import yaml

    class Plain(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        yaml_implicit_resolvers = {  # noqa: RUF012 - yaml's own name
            first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    try:
        return yaml.load(content, Loader=Plain)
    except (yaml.YAMLError, RecursionError) as error:
        raise SpecError(f"{path} is not YAML: {' '.join(str(error).split())}", fix="correct the file", file=path) from None


def check(data: Any, path: str) -> dict[str, Any]:
    """Check a fragment against the schema; returns it.  Unknown fields are an error unless the file's ``schema`` is newer than ours."""
    _expect(data, MAPPING, path, "")
    schema = data.get("schema", SCHEMA)
    _expect(schema, (int,), path, "schema")
    lenient = schema > SCHEMA
    _fields(data, TOP, path, "", lenient)
    for key in ("plugin", "distribution", "package"):
        if key not in data:
            raise SpecError(f"{path}: {key} is missing (expected text)", fix=f"add '{key}: ...'", file=path, key=key)
    for kind, items in data.get("provides", {}).items():
        _strings(items, path, f"provides.{kind}")
        if kind not in KIND_NAMES and not lenient:
            raise SpecError(f"{path}: provides.{kind} is unknown", fix=f"one of {', '.join(KIND_NAMES)}", file=path, key=f"provides.{kind}")
    for index, rule in enumerate(data.get("recognises", ())):
        where = f"recognises[{index}]"
        _expect(rule, MAPPING, path, where)
        for key in ("file", "model"):
            _expect(rule.get(key), TEXT, path, f"{where}.{key}")
    defaults = data.get("defaults", {})
    _entry(defaults, path, "defaults", lenient)
    for name, entry in data.get("models", {}).items():
        where = f"models.{name}"
        _expect(entry, MAPPING, path, where)
        _entry(entry, path, where, lenient)
        for required in ("task", "build"):
            if required not in entry and required not in defaults:
                raise SpecError(
                    f"{path}: {where}.{required} is missing (expected text)", fix="add it there or below defaults", file=path, key=f"{where}.{required}"
                )
        status = entry.get("status", defaults.get("status", "published"))
        if status not in STATUSES:
            raise SpecError(f"{path}: {where}.status is {status!r}", fix=f"one of {', '.join(STATUSES)}", file=path, key=f"{where}.status")
    return dict(data)


STATUSES = ("embedded", "published", "config-only")
KIND_NAMES = (
    "models", "components", "tokenizers", "caches", "kernels", "samplers", "evaluators", "weights", "recipes", "claims", "parity", "benchmarks", "commands",
)  # fmt: skip


def _entry(entry: dict[str, Any], path: str, where: str, lenient: bool) -> None:
    _fields(entry, MODEL, path, where, lenient)
    for key in STRINGS:
        if key in entry:
            _strings(entry[key], path, f"{where}.{key}")
    for index, item in enumerate(entry.get("weights", ())):
        _expect(item, MAPPING, path, f"{where}.weights[{index}]")
        _expect(item.get("source"), TEXT, path, f"{where}.weights[{index}].source")
        _expect(item.get("files", []), SEQUENCE, path, f"{where}.weights[{index}].files")
    for name, variant in entry.get("variants", {}).items():
        _expect(variant, MAPPING, path, f"{where}.variants.{name}")
        _fields(variant, MODEL, path, f"{where}.variants.{name}", lenient)
    for op, hints in entry.get("kernels", {}).items():
        _expect(hints, MAPPING, path, f"{where}.kernels.{op}")
    if "precision" in entry:
        for part, dtype in entry["precision"].items():
            _expect(dtype, TEXT, path, f"{where}.precision.{part}")


def _fields(data: dict[str, Any], known: dict[str, tuple[type, ...]], path: str, where: str, lenient: bool) -> None:
    for key, value in data.items():
        place = f"{where}.{key}" if where else str(key)
        if key in known:
            if value is not None:
                _expect(value, known[key], path, place)
        elif not lenient and not str(key).startswith("x-"):
            raise SpecError(f"{path}: {place} is unknown", fix=f"known: {', '.join(known)}; own fields start with 'x-'", file=path, key=place)


def _strings(value: Any, path: str, where: str) -> None:
    _expect(value, SEQUENCE, path, where)
    for index, item in enumerate(value):
        _expect(item, TEXT, path, f"{where}[{index}]")


def _expect(value: Any, types: tuple[type, ...], path: str, where: str) -> None:
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        wanted = " or ".join(WORDS[item] for item in types)
        what = f"{path}: {where + ' is' if where else 'the file holds'} {WORDS.get(type(value), type(value).__name__)}, expected {wanted}"
        raise SpecError(what, fix="correct the file, or reinstall the plugin", file=path, key=where, expected=wanted)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``: mappings are merged, everything else is replaced.

    >>> merged({"a": {"x": 1}, "b": [1]}, {"a": {"y": 2}, "b": [2]})
    {'a': {'x': 1, 'y': 2}, 'b': [2]}
    """
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) else value
    return result


def entries(fragment: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Model name and full card: defaults below the entry, with plugin, distribution, package and paper filled in."""
    defaults = fragment.get("defaults") or {}
    common = {key: fragment[key] for key in ("plugin", "distribution", "package") if key in fragment}
    paper = fragment.get("paper")
    for name, entry in (fragment.get("models") or {}).items():
        card = {"name": name, **merged(defaults, entry), **common}
        if paper and "paper" not in card:
            card["paper"] = paper
        card.setdefault("status", "published")
        yield name, card
