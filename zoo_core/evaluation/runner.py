"""Generate, score, aggregate: three steps that can each be stopped at any point and go on where they were.

Run folder:

    run.json        what is being run (identity) and the description of the model, written when it is loaded
    samples.jsonl   one line per generated sample, in the order of generation
    scores.jsonl    one line per scored sample
    images/ ...     what the evaluator writes
    result.json     written last, in one rename
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo_core.errors import EvaluationError, UnsafePathError
from zoo_core.evaluation import provenance
from zoo_core.evaluation.results import SCHEMA, read_result, write_json
from zoo_core.evaluation.statistics import Interval, bootstrap, bootstrap_statistic
from zoo_core.interfaces import Evaluator, Model, Sample

SCORE_CHUNK = 32
Progress = Callable[[str, int, int], None]
"""``progress(phase, done, total)``."""


def item_seed(seed: int, identity: str) -> int:
    """Seed of one item: depends on the run's seed and the item's id only, never on batches or on what was done before (32 bits).

    >>> item_seed(0, "a") == item_seed(0, "a") != item_seed(1, "a")
    True
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{identity}".encode()).digest()[:4], "big")


def run_evaluation(
    model: Model | str,
    evaluator: Evaluator | str,
    options: Mapping[str, Any] | None = None,
    *,
    load_options: Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    seed: int = 0,
    limit: int | None = None,
    fresh: bool = False,
    rescore: bool = False,
    name: str | None = None,
    version: int | None = None,
    better: Mapping[str, str] | None = None,
    registry: Any = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate a model; the same call goes on with what an earlier, interrupted one left in the folder.

    Args:
        model: A loaded model, or a name for ``zoo.load`` (then it is loaded only if there is something left to generate).
        evaluator: An evaluator, or the name of a registered one, built with ``options``.
        load_options: Arguments for ``zoo.load``.
        output: Run folder (default ``runs/eval/<model>--<evaluator>``).
        limit: Only the first so many items.
        fresh: Throw away what the folder holds.
        rescore: Throw away the scores and score the stored samples again, without the model.

    Returns:
        The result (also in ``result.json``); see :mod:`zoo_core.evaluation.results`.

    Raises:
        EvaluationError: The folder holds another run, the evaluator breaks its contract, or the model is of another task.
    """
    from zoo_core.specs import EvaluatorSpec

    options = dict(options or {})
    spec: EvaluatorSpec | None = None
    if isinstance(evaluator, str):
        if registry is None:
            from zoo_core.registry import get_registry

            registry = get_registry()
        found = registry.get("evaluators", evaluator)
        spec, name, version, better = found, evaluator, found.version, found.metrics
        evaluator = _build(found, options)
    label = name or type(evaluator).__name__
    model_name = model if isinstance(model, str) else model.name
    folder = Path(output) if output is not None else Path("runs/eval") / _safe(f"{model_name}--{label}")
    if fresh and (folder / "run.json").exists():
        shutil.rmtree(folder)
    items = [dict(item) for item in evaluator.items(limit)]
    _check_items(items)
    identity = {
        "schema": SCHEMA,
        "model": model_name,
        "load_options": provenance.plain(load_options or {}) if isinstance(model, str) else _arguments(model),
        "evaluator": label,
        "version": version or 1,
        "options": provenance.plain(options),
        "seed": seed,
        "limit": limit,
        "fingerprint": fingerprint(items),
    }
    run = _open_run(folder, identity)
    began = time.perf_counter()
    samples = _read(folder / "samples.jsonl")
    waiting = [item for item in items if item["id"] not in samples]
    if waiting:
        handle = _load(model, load_options or {})
        if spec is not None and spec.task != handle.task:
            raise EvaluationError(f"evaluator {label!r} is for {spec.task}, model {handle.name!r} is {handle.task}", fix=f"zoo list --task {spec.task}")
        run["description"] = provenance.describe_model(handle)
        write_json(folder / "run.json", run)
        _generate(evaluator, handle, waiting, folder, seed, samples, len(items), progress)
    generated = time.perf_counter()
    if "description" not in run:
        raise EvaluationError(f"{folder} has samples but no description of the model that made them", fix="--fresh")
    ordered = [samples[item["id"]] for item in items]
    scored = _score(evaluator, ordered, folder, rescore, progress)
    done = time.perf_counter()
    aggregate = dict(evaluator.aggregate(scored, folder))
    result = {
        "schema": SCHEMA,
        "kind": "evaluation",
        "model": run["description"],
        "evaluator": {"name": label, "version": version or 1, "options": provenance.plain(options)},
        "metrics": _metrics(evaluator, aggregate, scored, folder, {**getattr(evaluator, "better", {}), **(better or {})}),
        "samples": {"wanted": len(items), "evaluated": len(scored), "fingerprint": identity["fingerprint"]},
        "per_sample": _table(scored),
        "seed": seed,
        "limit": limit,
        "load_options": identity["load_options"],
        "date": provenance.now(),
        "command": provenance.command(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "seconds": {"generate": generated - began, "score": done - generated, "aggregate": time.perf_counter() - done},
        "notes": list(getattr(evaluator, "notes", ())),
    }
    write_json(folder / "result.json", result)
    return result


def repeat(path: str | Path, *, output: str | Path | None = None, progress: Progress | None = None, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the evaluation that a result file describes again, in a new folder; returns (recorded, repeated)."""
    old = read_result(path)
    source = Path(path) if Path(path).is_dir() else Path(path).parent
    folder = Path(output) if output is not None else source / "repeat"
    new = run_evaluation(
        old["model"]["name"],
        old["evaluator"]["name"],
        old["evaluator"]["options"],
        load_options=old.get("load_options") or {},
        output=folder,
        seed=old["seed"],
        limit=old.get("limit"),
        fresh=True,
        progress=progress,
        **changes,
    )
    return old, new


def fingerprint(items: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 over the items in order."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps(provenance.plain(item), sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


# -- the steps ---------------------------------------------------------------------------------------------------------------


def _arguments(model: Model) -> dict[str, Any]:
    arguments: dict[str, Any] = provenance.plain(model.load_arguments)
    return {key: value for key, value in arguments.items() if key != "name"}


def _load(model: Model | str, options: Mapping[str, Any]) -> Model:
    if not isinstance(model, str):
        return model
    from zoo_core.loading import load

    handle: Model = load(model, **options)
    return handle


def _build(spec: Any, options: Mapping[str, Any]) -> Evaluator:
    from zoo_core.specs import resolve

    factory = resolve(spec.build)
    try:
        evaluator: Evaluator = factory(**options)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        import inspect

        names = ", ".join(inspect.signature(factory).parameters)
        raise EvaluationError(f"evaluator {spec.name!r}: {error}", fix=f"its options are: {names or 'none'}") from error
    return evaluator


def _check_items(items: Sequence[Mapping[str, Any]]) -> None:
    if not items:
        raise EvaluationError("the evaluator has no items", fix="check its data options, or a larger --limit")
    seen: set[str] = set()
    for item in items:
        identity = item.get("id")
        if not isinstance(identity, str) or not identity or identity in seen:
            raise EvaluationError(f"item id {identity!r} is empty, no string or used twice", fix="give every item its own 'id'")
        seen.add(identity)


def _open_run(folder: Path, identity: dict[str, Any]) -> dict[str, Any]:
    path = folder / "run.json"
    if not path.exists():
        if (folder / "samples.jsonl").exists():
            raise EvaluationError(f"{folder} holds samples of an unknown run", fix="--output another folder")
        run = {"identity": identity}
        write_json(path, run)
        return run
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        recorded = run["identity"]
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{path} is damaged", fix="--fresh") from error
    differing = [f"{key}: {recorded.get(key)!r} there, {value!r} now" for key, value in identity.items() if recorded.get(key) != value]
    if differing:
        raise EvaluationError(f"{folder} holds another run", tried=differing, fix="--output another folder, or --fresh to replace it")
    return dict(run)


def _generate(
    evaluator: Evaluator,
    model: Model,
    waiting: list[dict[str, Any]],
    folder: Path,
    seed: int,
    samples: dict[str, Sample],
    total: int,
    progress: Progress | None,
) -> None:
    expected = {item["id"] for item in waiting}
    with (folder / "samples.jsonl").open("a", encoding="utf-8") as file:
        for sample in evaluator.generate(model, waiting, folder, seed=seed):
            if sample.id not in expected:
                raise EvaluationError(f"evaluator gave sample {sample.id!r}, which is not an open item", fix="yield every item once, with its own id")
            expected.discard(sample.id)
            for relative in sample.files.values():
                inside = folder / relative
                if not inside.resolve().is_relative_to(folder.resolve()):
                    raise UnsafePathError(f"sample {sample.id!r} names {relative!r}, outside its run folder")
                if not inside.exists():
                    raise EvaluationError(f"sample {sample.id!r} names the file {relative}, which was not written")
            samples[sample.id] = sample
            file.write(json.dumps(provenance.plain(sample), ensure_ascii=False) + "\n")
            file.flush()
            if progress is not None:
                progress("generate", len(samples), total)
    if expected:
        raise EvaluationError(f"evaluator left out {len(expected)} items, e.g. {sorted(expected)[0]!r}")


def _score(evaluator: Evaluator, ordered: list[Sample], folder: Path, again: bool, progress: Progress | None) -> list[Sample]:
    path = folder / "scores.jsonl"
    if again:
        path.unlink(missing_ok=True)
    known = {key: sample.scores for key, sample in _read(path).items()}
    open_samples = [sample for sample in ordered if sample.id not in known]
    with path.open("a", encoding="utf-8") as file:
        for start in range(0, len(open_samples), SCORE_CHUNK):
            chunk = open_samples[start : start + SCORE_CHUNK]
            scored = list(evaluator.score(chunk, folder))
            if [sample.id for sample in scored] != [sample.id for sample in chunk]:
                raise EvaluationError("evaluator's score() changed the samples or their order")
            for sample in scored:
                known[sample.id] = provenance.plain(sample.scores)
            file.write("".join(json.dumps({"id": sample.id, "scores": known[sample.id]}, ensure_ascii=False) + "\n" for sample in scored))
            file.flush()
            if progress is not None:
                progress("score", len(known), len(ordered))
    return [Sample(sample.id, sample.inputs, sample.outputs, sample.files, known[sample.id]) for sample in ordered]


def _metrics(evaluator: Evaluator, aggregate: dict[str, Any], scored: list[Sample], folder: Path, better: dict[str, str]) -> dict[str, Any]:
    resamples = int(getattr(evaluator, "resamples", 0))
    drawn: dict[str, Interval] = {}
    if resamples:
        drawn = bootstrap_statistic(scored, lambda chosen: dict(evaluator.aggregate(chosen, folder)), resamples=resamples)
    metrics: dict[str, Any] = {}
    for name, value in aggregate.items():
        values = [float(sample.scores[name]) for sample in scored if sample.scores.get(name) is not None]
        entry: dict[str, Any] = {
            "value": provenance.plain(float(value)),
            "low": None,
            "high": None,
            "n": len(scored),
            "better": better.get(name),
            "method": None,
        }
        interval = drawn.get(name)
        if interval is None and values and abs(sum(values) / len(values) - float(value)) <= 1e-9 * max(1.0, abs(float(value))):
            interval = bootstrap(values)
        if interval is not None:
            entry |= {"low": provenance.plain(interval.low), "high": provenance.plain(interval.high), "n": interval.n, "method": "bootstrap, 95 %"}
        if len(values) < len(scored) and values:
            entry["missing"] = len(scored) - len(values)
        metrics[name] = entry
    return metrics


def _table(scored: Iterable[Sample]) -> dict[str, Any]:
    samples = list(scored)
    names = sorted({name for sample in samples for name in sample.scores})
    return {"ids": [sample.id for sample in samples], "scores": {name: [sample.scores.get(name) for sample in samples] for name in names}}


def read_samples(folder: str | Path) -> list[Sample]:
    """The stored samples of a run with their scores, in the order of generation."""
    folder = Path(folder)
    scores = _read(folder / "scores.jsonl")
    found = []
    for sample in _read(folder / "samples.jsonl").values():
        known = scores[sample.id].scores if sample.id in scores else {}
        found.append(Sample(sample.id, sample.inputs, sample.outputs, sample.files, known))
    return found


def _read(path: Path) -> dict[str, Sample]:
    """Samples by id; a line that a killed process left unfinished is cut off the file."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) != len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    samples: dict[str, Sample] = {}
    for number, line in enumerate(whole.decode("utf-8").split("\n")[:-1], 1):
        try:
            sample = Sample(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise EvaluationError(f"{path} line {number} is damaged", fix="--fresh") from error
        samples[sample.id] = sample
    return samples


def _safe(text: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in text).strip(".")


__all__ = ["fingerprint", "item_seed", "read_samples", "repeat", "run_evaluation"]
