"""``zoo registry build``: fragments from YAML to JSON, and all of a checkout's fragments into the merged catalogue."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from zoo_core import fragment as fragments
from zoo_core.catalog import dump
from zoo_core.errors import InputError, SpecError

HEADER = """# The merged catalogue: every model of every plugin in this checkout.
# Written by `zoo registry build` from plugins/*/zoo_*/registry.yaml; edit those.
"""
LEFT_OUT = ("config", "config_class", "build", "layouts")
"""Parts of a model that only its plugin needs; they stay in the fragment."""


def compile_fragment(source: Path) -> dict[str, Any]:
    """The JSON form of one ``registry.yaml``: checked, anchors resolved, with the fingerprint of its source.

    Raises:
        SpecError: Names file, key path and expected type.
    """
    content = source.read_bytes()
    data = fragments.check(fragments.from_yaml(content, str(source)), source.name if not source.is_absolute() else str(source))
    return {**data, fragments.SOURCE_KEY: fragments.fingerprint(content)}


def merge(compiled: list[dict[str, Any]]) -> dict[str, Any]:
    """The catalogue of several compiled fragments.

    Raises:
        SpecError: Two of them claim one plugin, model or alias.
    """
    plugins: dict[str, Any] = {}
    owners: dict[str, str] = {}
    for data in sorted(compiled, key=lambda item: str(item["plugin"])):
        name = data["plugin"]
        if name in plugins:
            raise SpecError(f"two fragments are named {name!r}", fix="an entry-point name is unique", plugin=name)
        models = {}
        for model, card in fragments.entries(data):
            for label in (model, *card.get("aliases", ())):
                if label in owners:
                    raise SpecError(f"model name {label!r} is claimed by {owners[label]!r} and {name!r}", fix="rename one of them", name=label)
                owners[label] = name
            common = ("name", "plugin", "distribution", "package", *LEFT_OUT)
            models[model] = {key: _shown(value) for key, value in card.items() if key not in common and not (key == "paper" and value == data.get("paper"))}
            models[model].update({"task": card["task"], "build": card["build"]})
        plugins[name] = {key: data[key] for key in ("schema", "plugin", "distribution", "package", "api", "paper", "provides") if key in data} | {
            "models": models
        }
    return {"schema": fragments.SCHEMA, "plugins": plugins}


def _shown(value: Any) -> Any:
    """A card's part without configuration inside variants."""
    if isinstance(value, dict):
        return {key: _shown(item) for key, item in value.items() if key not in LEFT_OUT}
    return value


def checkout(start: str | os.PathLike[str] | None = None) -> Path | None:
    """The folder of this project's checkout at or above ``start`` (default: the current folder), else the one the core is installed from."""
    here = Path(start or os.getcwd()).resolve()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[1]):
        if (folder / "plugins").is_dir() and (folder / "zoo_core").is_dir() and (folder / "pyproject.toml").is_file():
            return folder
    return None


def sources(root: Path) -> list[Path]:
    """The fragments of a checkout (``plugins/*/*/registry.yaml``) or of one plugin project (``*/registry.yaml``)."""
    return sorted(root.glob("plugins/*/*/registry.yaml")) if (root / "zoo_core").is_dir() else sorted(root.glob("*/registry.yaml"))


def outputs(root: Path) -> dict[Path, str]:
    """Every file that ``zoo registry build`` writes -> its content."""
    found = sources(root)
    if not found:
        raise InputError(f"no registry.yaml below {str(root)!r}", fix="run it in a checkout of the zoo or in a plugin's project folder")
    result: dict[Path, str] = {}
    compiled = []
    for source in found:
        data = compile_fragment(source)
        compiled.append(data)
        result[source.with_suffix(".json")] = dump(data)
    if (root / "zoo_core").is_dir():
        import yaml

        catalogue = merge(compiled)
        result[root / "zoo_core" / "data" / "registry.json"] = dump(catalogue)
        result[root / "registry.yaml"] = HEADER + yaml.dump(catalogue, Dumper=_plain(), sort_keys=False, allow_unicode=True, width=150)
    return result


def _plain() -> Any:
    import yaml

    class Plain(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return Plain


def build(root: Path, *, check: bool = False) -> list[Path]:
    """Write what differs (or, with ``check``, only tell it); returns the files that were stale."""
    stale = []
    for path, content in outputs(root).items():
        old = path.read_text(encoding="utf-8") if path.is_file() else None
        if old != content:
            stale.append(path)
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
                temporary.write_text(content, encoding="utf-8")
                os.replace(temporary, path)
    return stale
