"""Prompt sets in the formats that papers use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zoo_core.errors import EvaluationError

SAMPLE = (
    "a slice of pizza",
    "a red apple on a wooden table",
    "a lighthouse at night, oil painting",
    "two cats and one dog on a sofa",
    "a blue cube left of a yellow sphere",
    "a sign that says ZOO",
    "portrait of an old sailor, studio light",
    "snow-covered mountains at sunrise",
)
"""Eight prompts for a first look; no benchmark."""


def load_prompts(source: str | Path | None) -> list[dict[str, Any]]:
    """Items with ``id``, ``prompt`` and whatever else the set says.

    | source | recognised by |
    |---|---|
    | None | :data:`SAMPLE` |
    | MJHQ-30K folder or file | ``meta_data.json``: id -> {category, prompt}; pictures lie in ``mjhq30k_imgs/<category>/<id>.jpg`` |
    | GenEval | ``.jsonl`` with ``prompt``, ``tag``, ``include``... per line; ids are the line numbers as five digits |
    | list of objects | ``.json`` with a list of strings or of objects with ``prompt`` |
    | plain text | one prompt per line; empty lines and lines that start with ``#`` are skipped |

    Raises:
        EvaluationError: The source is missing, damaged or holds no prompt.
    """
    if source is None:
        return [{"id": f"{index:05d}", "prompt": prompt} for index, prompt in enumerate(SAMPLE)]
    path = Path(source)
    if path.is_dir():
        path = path / "meta_data.json"
    if not path.is_file():
        raise EvaluationError(f"prompt set {path} does not exist", fix="prompts=FILE (.txt, .json, .jsonl) or the MJHQ-30K folder")
    try:
        text = path.read_text(encoding="utf-8-sig")
        items = _parse(text, path.suffix)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise EvaluationError(f"prompt set {path} cannot be read: {error}", fix="UTF-8 text, JSON or JSON lines") from error
    if not items:
        raise EvaluationError(f"prompt set {path} holds no prompt")
    for item in items:
        if not isinstance(item.get("prompt"), str) or not item["prompt"].strip():
            raise EvaluationError(f"prompt set {path}: item {item.get('id')!r} has no prompt")
    return items


def _parse(text: str, suffix: str) -> list[dict[str, Any]]:
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        return [_item(index, row) for index, row in enumerate(rows)]
    if suffix == ".json":
        data = json.loads(text)
        if isinstance(data, dict):  # MJHQ-30K
            return [{"id": str(key), **(row if isinstance(row, dict) else {"prompt": row})} for key, row in data.items()]
        return [_item(index, row) for index, row in enumerate(data)] if isinstance(data, list) else []
    lines = [line.strip() for line in text.split("\n")]
    return [_item(index, line) for index, line in enumerate(line for line in lines if line and not line.startswith("#"))]


def _item(index: int, row: Any) -> dict[str, Any]:
    if isinstance(row, dict):
        return {**row, "id": f"{index:05d}"}
    return {"id": f"{index:05d}", "prompt": row}


def reference_images(folder: str | Path) -> list[Path]:
    """Pictures below ``folder`` in a fixed order (MJHQ-30K's ``mjhq30k_imgs`` when it is there)."""
    root = Path(folder)
    if (root / "mjhq30k_imgs").is_dir():
        root = root / "mjhq30k_imgs"
    if not root.is_dir():
        raise EvaluationError(f"picture folder {root} does not exist", fix="give a folder of PNG, JPEG or WebP pictures")
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".bmp") and path.is_file())
    if not found:
        raise EvaluationError(f"picture folder {root} holds no pictures", fix="give a folder of PNG, JPEG or WebP pictures")
    return found
