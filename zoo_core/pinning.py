"""``zoo registry pin``: commit and digests from the hub, written into a fragment's YAML without touching the rest of its text."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from zoo_core import fragment as fragments
from zoo_core.compilation import sources
from zoo_core.errors import SpecError, UnknownModelError
from zoo_core.names import near_misses


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
