"""``zoo registry build``: fragments from YAML to JSON, and all of a checkout's fragments into the merged catalogue.

``zoo registry pin``: commit and digests from the hub, written into a fragment's YAML without touching the rest of its text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from zoo_core import fragment as fragments
from zoo_core.catalog import dump
from zoo_core.errors import InputError, SpecError, UnknownModelError
from zoo_core.names import near_misses

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
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
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


# -- zoo registry pin --------------------------------------------------------------------------------------------------------


def pin_model(root: Path, name: str, *, revision: str | None = None) -> list[str]:
    """Pin every ``hf://`` source of a model; returns one line per source.

    Raises:
        UnknownModelError: No fragment below ``root`` has the model.
        DownloadError, OfflineError: From the hub.
        SpecError: The entry is written in a form that cannot be edited in place (a YAML alias).
    """
    from zoo_core.hub import parse_source, pin

    known: list[str] = []
    for source in sources(root):
        text = source.read_text(encoding="utf-8")
        data = fragments.check(fragments.from_yaml(text.encode(), str(source)), str(source))
        models = data.get("models", {})
        known += models
        if name not in models:
            continue
        lines = []
        for index, entry in enumerate(models[name].get("weights", ())):
            ref = parse_source(str(entry["source"]))
            if ref.kind != "hf":
                continue
            wanted = f"hf://{ref.name}@{revision}" + (f"/{ref.sub}" if ref.sub else "") if revision else str(entry["source"])
            commit, files = pin(wanted, [item["path"] for item in entry.get("files", ())] or None)
            text = replaced(text, name, index, {**entry, "revision": commit, "files": files}, source)
            lines.append(f"{entry['source']}: {commit}, {len(files)} files")
        if not lines:
            raise SpecError(f"model {name!r} has no hf:// source to pin", fix=f"edit {source}")
        fragments.check(fragments.from_yaml(text.encode(), str(source)), str(source))
        temporary = source.with_name(f".{source.name}.{os.getpid()}.tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, source)
        return lines
    close = near_misses(name, known)
    raise UnknownModelError(
        f"no fragment below {str(root)!r} has the model {name!r}",
        tried=[f"did you mean: {', '.join(close)}"] if close else [],
        fix="zoo list",
        suggestions=close,
    )


def replaced(text: str, model: str, index: int, entry: dict[str, Any], path: Path) -> str:
    """``text`` with item ``index`` of ``models.<model>.weights`` written anew, everything else byte for byte as it was."""
    import yaml

    node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    for step in ("models", model, "weights", index):
        found = None
        if isinstance(node, yaml.MappingNode):
            found = next((value for key, value in node.value if key.value == step), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            found = node.value[step]
        if found is None:
            raise SpecError(f"{path}: models.{model}.weights[{index}] is not written there", fix="write the weights list at the model itself", file=str(path))
        node = found
    if node is None or node.start_mark is None or node.end_mark is None:
        raise SpecError(f"{path}: the fragment is empty", fix="write the model into it", file=str(path))
    begin, end = node.start_mark.index, node.end_mark.index
    if text[begin - 1 : begin] == "*":
        raise SpecError(f"{path}: models.{model}.weights[{index}] is a YAML alias", fix="write it out", file=str(path))
    indent = " " * node.start_mark.column
    body = dumped(entry)
    tail = re.search(r"\s*\Z", text[begin:end])
    return text[:begin] + body.replace("\n", "\n" + indent) + (tail.group() if tail else "") + text[end:]


def dumped(entry: dict[str, Any]) -> str:
    """One weights item as the fragments write it: a line per field, a line per file."""
    import json

    lines = []
    for key, value in entry.items():
        if key == "files":
            lines.append("files:")
            lines += [f"  - {{{', '.join(f'{k}: {scalar(v)}' for k, v in item.items())}}}" for item in value]
        else:
            lines.append(f"{key}: {scalar(value) if not isinstance(value, (dict, list)) else json.dumps(value)}")
    return "\n".join(lines)


def scalar(value: Any) -> str:
    """A YAML scalar in flow context; digests that look like numbers are quoted."""
    import json

    if value is None:
        return "null"
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    text = str(value)
    plain = re.fullmatch(r"[A-Za-z_./][A-Za-z0-9_./:@=+-]*", text) and text.lower() not in ("null", "true", "false", "yes", "no", "on", "off", "~")
    return text if plain and ": " not in text else json.dumps(text)
