"""Two result files side by side, paired where sample ids match."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from zoo_core.evaluation.statistics import bootstrap


@dataclass(slots=True)
class Difference:
    """``b - a`` of one metric.

    Attributes:
        low, high: 95 % interval of the difference (None where neither file has per-sample scores of it).
        method: ``paired`` (same ids: the interval of the mean of differences), ``unpaired`` (independent resampling) or ``values only``.
        verdict: ``better``, ``worse`` or ``different`` (direction unknown) for b; ``no clear difference``; ``equal``; ``unknown`` without an interval.
    """

    metric: str
    a: float | None
    b: float | None
    difference: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    method: str = "values only"
    verdict: str = "unknown"


def compare_results(a: Mapping[str, Any], b: Mapping[str, Any], *, resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Differences of all metrics that both results have.

    Returns:
        ``rows`` (:class:`Difference` as dicts), ``warnings`` (what makes the two hard to compare), ``only_a`` and ``only_b`` (metrics of one side).
    """
    warnings = []
    for path, label in (
        (("evaluator", "name"), "evaluator"),
        (("evaluator", "version"), "evaluator version"),
        (("samples", "fingerprint"), "data"),
        (("seed",), "seed"),
    ):
        left, right = _at(a, path), _at(b, path)
        if left != right:
            warnings.append(f"{label} differs" + ("" if label == "data" else f": {left} and {right}"))
    rows = [asdict(_difference(name, a, b, resamples, seed)) for name in a["metrics"] if name in b["metrics"]]
    return {
        "rows": rows,
        "warnings": warnings,
        "only_a": sorted(a["metrics"].keys() - b["metrics"].keys()),
        "only_b": sorted(b["metrics"].keys() - a["metrics"].keys()),
    }


def _difference(name: str, a: Mapping[str, Any], b: Mapping[str, Any], resamples: int, seed: int) -> Difference:
    first, second = a["metrics"][name], b["metrics"][name]
    left, right = first["value"], second["value"]
    row = Difference(name, left, right, None if left is None or right is None else right - left)
    if row.difference is None:
        return row
    scores_a, scores_b = _scores(a, name), _scores(b, name)
    # Per-sample scores speak for the metric only where it is their mean.
    speaks = all(s and abs(float(np.mean(list(s.values()))) - v) <= 1e-9 * max(1.0, abs(v)) for s, v in ((scores_a, left), (scores_b, right)))
    if speaks and scores_a.keys() == scores_b.keys():
        differences = [scores_b[key] - scores_a[key] for key in scores_a]
        interval = bootstrap(differences, resamples=resamples, seed=seed)
        row.low, row.high, row.n, row.method = interval.low, interval.high, interval.n, "paired"
        if not any(differences):
            row.verdict = "equal"
            return row
    elif speaks:
        rng = np.random.default_rng(seed)
        one, other = (np.array(list(s.values())) for s in (scores_a, scores_b))
        draws = [rng.choice(other, len(other)).mean() - rng.choice(one, len(one)).mean() for _ in range(resamples)]
        row.low, row.high = (float(q) for q in np.quantile(draws, [0.025, 0.975]))
        row.n, row.method = min(len(one), len(other)), "unpaired"
    elif row.difference == 0:
        row.verdict = "equal"
        return row
    if row.low is not None and row.high is not None and row.n > 1:
        if row.low <= 0 <= row.high:
            row.verdict = "no clear difference"
        else:
            better = first.get("better")
            row.verdict = "different" if better is None else "better" if (row.difference > 0) == (better == "higher") else "worse"
    return row


def _scores(result: Mapping[str, Any], name: str) -> dict[str, float]:
    table = result.get("per_sample") or {}
    values = table.get("scores", {}).get(name)
    return {} if values is None else {key: float(value) for key, value in zip(table["ids"], values, strict=True) if value is not None}


def _at(data: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = data
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
