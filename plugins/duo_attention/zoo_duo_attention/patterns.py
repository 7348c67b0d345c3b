"""Head patterns: reading and writing the published layout, and turning learnt alphas into full and streaming heads.

A pattern directory holds ``full_attention_heads.tsv`` (one row per layer, one column per kv-head, ``%.18e``, tab separated) and ``config.json`` with at least
``sink_size`` and ``recent_size`` (fact: DuoAttention, arXiv 2410.10819, published files).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from zoo_core.errors import CheckpointError, InputError

TSV = "full_attention_heads.tsv"


@dataclass(frozen=True)
class Pattern:
    """Learnt gate values of one model.

    Attributes:
        alphas: [layers, kv heads] float64, clipped to [0, 1].
        sink: Attention-sink tokens of streaming heads.
        recent: Recent tokens of streaming heads.
        name: Where it came from.
        raw: Values before clipping.
        config: Everything else in ``config.json`` (training arguments).
    """

    alphas: np.ndarray
    sink: int
    recent: int
    name: str = ""
    raw: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def deploy(self) -> tuple[int, int]:
        """(sink, recent) to run with: ``deploy_sink_size`` and ``deploy_recent_size`` of ``config.json`` where they are set, else the training sizes."""
        sink, recent = self.config.get("deploy_sink_size"), self.config.get("deploy_recent_size")
        return self.sink if sink is None else int(sink), self.recent if recent is None else int(recent)

    @property
    def shape(self) -> tuple[int, int]:
        """(layers, kv heads)."""
        return self.alphas.shape[0], self.alphas.shape[1]


def read_pattern(path: str | Path) -> Pattern:
    """Read a pattern directory, or a ``.tsv`` file with ``config.json`` beside it.

    Raises:
        CheckpointError: A file is missing or is not a table of numbers.
    """
    path = Path(path)
    table = path if path.suffix == ".tsv" else path / TSV
    if not table.is_file():
        raise CheckpointError(f"pattern {str(path)!r}: there is no {TSV}", fix="give the directory that holds it")
    try:
        raw = np.loadtxt(table, dtype=np.float64, delimiter="\t", ndmin=2)
    except ValueError as error:
        raise CheckpointError(
            f"pattern file {table.name} is not a tab-separated table of numbers ({error})", fix="one row per layer, one column per kv-head"
        ) from error
    if not np.isfinite(raw).all():
        raise CheckpointError(f"pattern file {table.name} holds values that are not finite", fix="learn the pattern again")
    config_file = table.parent / "config.json"
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        sink, recent = int(config["sink_size"]), int(config["recent_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"pattern {str(path)!r}: config.json lacks sink_size and recent_size ({error})", fix='{"sink_size": 128, "recent_size": 256}'
        ) from error
    return Pattern(np.clip(raw, 0.0, 1.0), sink, recent, path.name, raw, config)


def write_pattern(folder: str | Path, alphas: np.ndarray, config: dict[str, Any]) -> Path:
    """Write the published layout (``config`` must have ``sink_size`` and ``recent_size``); returns the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    np.savetxt(folder / TSV, np.asarray(alphas, dtype=np.float64), delimiter="\t")
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return folder


def bundled() -> list[str]:
    """Names of the patterns that ship with the plugin."""
    return sorted(item.name for item in files("zoo_duo_attention").joinpath("data/patterns").iterdir() if item.joinpath(TSV).is_file())


def find_pattern(name: str | Path) -> Pattern:
    """A bundled pattern by name (case-insensitive), or any path."""
    text = str(name)
    folder = files("zoo_duo_attention").joinpath("data/patterns")
    for known in bundled():
        if known.lower() == text.lower():
            return read_pattern(Path(str(folder.joinpath(known))))
    if Path(text).exists():
        return read_pattern(text)
    raise InputError(
        f"pattern {text!r} is neither bundled nor a path", tried=[f"bundled: {', '.join(bundled())}"], fix="pattern=<directory with full_attention_heads.tsv>"
    )


def pattern_of_model(model: str) -> str | None:
    """Name of the bundled pattern that was learnt on catalogue model ``model`` (``model_name`` in its config.json), or None."""
    folder = files("zoo_duo_attention").joinpath("data/patterns")
    for known in bundled():
        if json.loads(folder.joinpath(known, "config.json").read_text(encoding="utf-8")).get("model_name") == model:
            return known
    return None


def binarise(
    alphas: np.ndarray, *, sparsity: float | None = None, threshold: float | None = None, full_heads: int | None = None, tie_break: np.ndarray | None = None
) -> np.ndarray:
    """Which heads keep everything: bool [layers, kv heads], True = full.

    Exactly one rule is given: ``sparsity`` (share of heads that stream; the number of full heads equals the published rule's), ``threshold`` (full
    iff alpha >= threshold) or
    ``full_heads`` (a count).  Ties are broken deterministically: by ``tie_break`` (higher first, e.g. an attention-mass probe) if given, then deeper
    layers first, then
    lower head index.

    >>> binarise(np.array([[1.0, 0.2], [0.9, 1.0]]), sparsity=0.5)
    array([[ True, False],
           [False,  True]])
    """
    alphas = np.asarray(alphas, dtype=np.float64)
    given = [name for name, value in (("sparsity", sparsity), ("threshold", threshold), ("full_heads", full_heads)) if value is not None]
    if len(given) != 1:
        raise InputError(f"pattern: give exactly one of sparsity, threshold, full_heads (got {given or 'none'})", fix="sparsity=0.5")
    if threshold is not None:
        return alphas >= threshold
    total = alphas.size
    if sparsity is not None:
        if not 0 <= sparsity <= 1:
            raise InputError(f"pattern: sparsity {sparsity} is not between 0 and 1", fix="sparsity=0.5")
        # values above the linear-interpolation quantile at `sparsity` of `total` distinct numbers
        full_heads = 0 if sparsity >= 1 else total if sparsity <= 0 else total - int(np.ceil(sparsity * (total - 1) - 1e-12))
    assert full_heads is not None
    if not 0 <= full_heads <= total:
        raise InputError(f"pattern: {full_heads} full heads of {total}", fix=f"a number from 0 to {total}")
    layers, heads = np.divmod(np.arange(total), alphas.shape[1])
    second = np.zeros(total) if tie_break is None else -np.asarray(tie_break, dtype=np.float64).ravel()
    order = np.lexsort((heads, -layers, second, -alphas.ravel()))
    mask = np.zeros(total, dtype=bool)
    mask[order[:full_heads]] = True
    return mask.reshape(alphas.shape)


def binarise_legacy(alphas: np.ndarray, sparsity: float, seed: int | None = 42) -> np.ndarray:
    """The published rule bit for bit: uniform noise in [0, 1e-6) from numpy's legacy generator, quantile, full iff above.

    Ties at exactly 1.0 or 0.0 fall at random; use it only to repeat published numbers.  ``seed=None`` draws from the global generator.  The caller's
    array is not changed.
    """
    noisy = np.array(alphas, dtype=np.float64)
    generator = np.random.RandomState(seed) if seed is not None else np.random.mtrand._rand  # type: ignore[attr-defined]
    noisy += generator.uniform(0, 1e-6, noisy.shape)
    if sparsity >= 1:
        return np.zeros(noisy.shape, dtype=bool)
    if sparsity <= 0:
        return np.ones(noisy.shape, dtype=bool)
    return noisy >= np.quantile(noisy, sparsity)


def random_pattern(shape: tuple[int, int], sparsity: float, seed: int = 0) -> np.ndarray:
    """A random choice of full heads with the same count as :func:`binarise` (a baseline)."""
    return binarise(np.random.default_rng(seed).random(shape), sparsity=sparsity)
