"""Which model builds the files at a path or in a repository: manifests first, then the plugins' ``recognises:`` rules."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from zoo_core.errors import CheckpointError, UnknownModelError, WeightsError
from zoo_core.names import Reference, parse
from zoo_core.registry import ZooRegistry

MAX_BYTES = 20 << 20


def bundle(path: str) -> str:
    """Model name in the manifest of a ``.zoo`` bundle."""
    from zoo_core.hub.pack import MANIFEST

    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(MANIFEST).file_size > MAX_BYTES:
                raise ValueError("its manifest is too large")
            manifest = json.loads(archive.read(MANIFEST))
        return parse(str(manifest["model"])).name
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path!r} is not a bundle of the zoo: {error}", fix="make one with zoo pack NAME") from None


def folder(path: str, registry: ZooRegistry) -> str:
    """Model name for a folder of published files.

    Raises:
        UnknownModelError: No rule fits, or rules of several models do.
    """
    if os.path.isfile(path):
        raise UnknownModelError(f"{path!r} is one file; it does not say which model it is", fix=f"zoo.load(NAME, weights={path!r})", suggestions=[])
    manifest = _json(os.path.join(path, "zoo-manifest.json"))
    if isinstance(manifest, dict) and isinstance(manifest.get("model"), str):
        return parse(manifest["model"]).name
    tried: list[str] = []
    found: dict[str, str] = {}
    for plugin, rule in rules(registry):
        label = f"{plugin}: {rule['file']}" + (f" with {rule['key']} = {rule.get('equals')!r}" if rule.get("key") else "")
        tried.append(label)
        if fits(path, rule):
            found.setdefault(rule["model"], label)
    if len(found) == 1:
        return next(iter(found))
    if found:
        raise UnknownModelError(
            f"several models fit {path!r}: {', '.join(found)}", tried=list(found.values()), fix=f"zoo.load(NAME, weights={path!r})", suggestions=list(found)
        )
    raise UnknownModelError(f"no installed plugin recognises the files in {path!r}", tried=tried, fix=f"zoo.load(NAME, weights={path!r})", suggestions=[])


def rules(registry: ZooRegistry) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Plugin name and rule, of every usable plugin, in order of name."""
    for name, plugin in registry.plugins().items():
        if plugin.usable:
            for rule in plugin.fragment.get("recognises", ()):
                yield name, rule


def fits(path: str, rule: Mapping[str, Any]) -> bool:
    """Whether a folder satisfies one rule: the file is there and, when given, its ``key`` (dotted) is ``equals`` (a value or a list of them)."""
    from zoo_core.names import safe_join, safe_relative

    safe_relative(str(rule["file"]), what="file name of a rule")
    from pathlib import Path

    file = safe_join(Path(path), str(rule["file"]))
    if not file.is_file():
        return False
    if not rule.get("key"):
        return True
    value = _json(str(file))
    for part in str(rule["key"]).split("."):
        value = (
            value.get(part) if isinstance(value, dict) else value[int(part)] if isinstance(value, list) and part.isdigit() and int(part) < len(value) else None
        )
    wanted = rule.get("equals")
    return value is not None and (wanted is None or value == wanted or (isinstance(wanted, list) and value in wanted))


def from_hub(ref: Reference, registry: ZooRegistry, offline: bool | None) -> tuple[Reference, str]:
    """Model and weights for ``hf://org/repo``: by the catalogue's sources, else by the configuration file in the repository."""
    from zoo_core.names import parse_source

    weights = str(ref)
    repo = ref.name
    for name, card in registry.models(installed=True).items():
        for entry in card.get("weights") or ():
            source = parse_source(str(entry["source"]))
            if source.kind == "hf" and source.name == repo:
                return Reference("name", name, None, None), weights
    from zoo_core.hub import resolve_weights
    from zoo_core.specs import ModelSpec

    problem: WeightsError | None = None
    for file in sorted({str(rule["file"]) for _, rule in rules(registry)}):
        card = {"weights": [{"source": weights, "revision": ref.revision, "files": [{"path": file}]}]}
        spec = ModelSpec(name="unknown", task="zoo/unknown", build="zoo_core.recognition:folder", card=card)
        try:
            found = resolve_weights(spec, offline=offline)
        except WeightsError as error:
            problem = error
            continue
        if found.root is not None:
            return Reference("name", folder(str(found.root), registry)), weights
    if problem is not None:
        raise problem
    raise UnknownModelError(f"no installed plugin recognises {weights}", fix=f"zoo.load(NAME, weights={weights!r})", suggestions=[])


def _json(path: str) -> Any:
    try:
        if os.path.getsize(path) > MAX_BYTES:
            return None
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None
