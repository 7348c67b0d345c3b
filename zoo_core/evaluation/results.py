"""Result files: JSON, schema 1, one per evaluation, benchmark or claim run.

An evaluation's file holds

    schema, kind = "evaluation"
    model       name, revision, weights (file, source, size, sha256, verified), config, dtype, device, kernels, arguments
    evaluator   name, version, options
    metrics     name -> value, low, high (95 % interval or null), n, better ("higher" | "lower" | null), method
    samples     wanted, evaluated, fingerprint (sha256 over the items)
    per_sample  ids and, per score, the values in the order of the ids (null where there is none)
    seed, limit, date, command, versions, machine, seconds, notes
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from zoo_core.errors import EvaluationError, NoSpaceError

SCHEMA = 1
REQUIRED = ("schema", "kind", "model", "evaluator", "metrics", "samples", "seed", "date", "versions", "machine")


def write_json(path: str | os.PathLike[str], data: Any) -> Path:
    """Write JSON so that the final name only ever shows a whole file (temporary file, fsync, rename)."""
    path = Path(path)
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno == 28:
            raise NoSpaceError(f"no room for {path}", fix="free some space and run the same command again") from error
        raise
    return path


def read_result(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read and check an evaluation's result file (or the run folder that holds it)."""
    path = Path(path)
    if path.is_dir():
        path = path / "result.json"
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EvaluationError(f"result file {path} does not exist", fix="zoo eval MODEL EVALUATOR writes one") from error
    except (OSError, ValueError) as error:
        raise EvaluationError(f"result file {path} cannot be read: {error}", fix="run the evaluation again") from error
    return check_result(data, str(path))


def check_result(data: Any, where: str = "result") -> dict[str, Any]:
    """Raise :class:`EvaluationError` unless ``data`` is an evaluation result of a schema that this version reads."""
    if not isinstance(data, dict) or data.get("kind") != "evaluation":
        raise EvaluationError(f"{where} is not an evaluation result", fix="give a result.json that zoo eval wrote")
    if not isinstance(data.get("schema"), int) or data["schema"] > SCHEMA:
        raise EvaluationError(f"{where} has schema {data.get('schema')!r}; this version reads up to {SCHEMA}", fix="upgrade zoo-core")
    missing = [key for key in REQUIRED if key not in data]
    if missing:
        raise EvaluationError(f"{where} lacks {', '.join(missing)}", fix="run the evaluation again")
    for name, metric in data["metrics"].items():
        if not isinstance(metric, dict) or "value" not in metric:
            raise EvaluationError(f"{where}: metric {name!r} has no value", fix="run the evaluation again")
    return data
