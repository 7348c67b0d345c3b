"""The ``duo`` caches: retrieval heads keep everything, streaming heads keep sinks and recent tokens (DuoAttention, section 2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from zoo_llm.caches.plan import CachePlan, kv_heads, layer_count, policy_plan

from zoo_core.errors import InputError
from zoo_core.interfaces import TokenPolicy
from zoo_duo_attention import patterns


def duo_plan(
    model: Any,
    *,
    storage: str = "native",
    pattern: str | Path | np.ndarray | None = None,
    sparsity: float | None = None,
    threshold: float | None = None,
    full_heads: int | None = None,
    sink: int | None = None,
    recent: int | None = None,
    prefill: str = "streaming",
    tie_break: str = "depth",
    seed: int = 42,
    **_: Any,
) -> CachePlan:
    """Builder of the caches ``duo``, ``duo-int8`` and ``duo-kv4``.

    Args:
        model: The language model handle.
        storage: Storage format of both kinds of heads.
        pattern: Bundled pattern name, pattern directory, a bool/float array [layers, kv heads], ``"streaming"`` (all heads stream), ``"random"``
            (a seeded random choice), or None: the pattern that the model's catalogue entry names (``defaults: {pattern: ...}``), else the bundled
            one that was learnt on this model.
        sparsity: Share of streaming heads; default 0.5 (MHA models with a published pattern: 0.75, see the model's card).
        threshold, full_heads: Other rules instead of ``sparsity``.
        sink, recent: Sizes of streaming heads; default: the catalogue entry's, else those that the pattern is to be used with, else 64 and 256.
        prefill: ``"streaming"`` (windowed from the first token, linear) or ``"legacy"`` (first call full attention, as upstream).
        tie_break: ``"depth"`` deterministic, or ``"legacy"`` upstream's random noise with ``seed``.

    Raises:
        InputError: The pattern does not have this model's layers and heads.
    """
    config = model.module.config
    shape = (layer_count(config), kv_heads(config))
    defaults = dict(model.card.get("defaults", {}))
    chosen = pattern if pattern is not None else defaults.get("pattern") or patterns.pattern_of_model(model.name)
    if chosen is None:
        raise InputError(
            f"model {model.name!r} has no head pattern",
            tried=[f"bundled: {', '.join(patterns.bundled())}"],
            fix="cache={'name': 'duo', 'pattern': DIRECTORY}, or zoo train duo/heads",
        )
    if sparsity is None and threshold is None and full_heads is None:
        sparsity = float(defaults.get("sparsity", 0.5))
    name = "duo"
    if isinstance(chosen, np.ndarray):
        alphas, sizes = chosen.astype(np.float64), (None, None)
    elif str(chosen) == "streaming":
        alphas, sizes, sparsity, threshold, full_heads = np.zeros(shape), (None, None), None, None, 0
    elif str(chosen) == "random":
        alphas, sizes = np.random.default_rng(seed).random(shape), (None, None)
    else:
        found = patterns.find_pattern(chosen)
        alphas, sizes, name = found.alphas, found.deploy, f"duo({found.name})"
    if alphas.shape != shape:
        raise InputError(
            f"the pattern has {alphas.shape[0]} layers x {alphas.shape[1]} kv-heads, model {model.name!r} has {shape[0]} x {shape[1]}",
            tried=[f"pattern: {'array' if isinstance(chosen, np.ndarray) else chosen}"],
            fix="choose the pattern that was learnt for this model",
        )
    sink = int(next(value for value in (sink, defaults.get("sink"), sizes[0], 64) if value is not None))
    recent = int(next(value for value in (recent, defaults.get("recent"), sizes[1], 256) if value is not None))
    if sink < 0 or recent < 1:
        raise InputError(f"duo cache: sink={sink}, recent={recent}", fix="sink >= 0 and recent >= 1, e.g. sink=64, recent=256")
    if tie_break == "legacy" and sparsity is not None:
        full = patterns.binarise_legacy(alphas, sparsity, seed)
    else:
        full = patterns.binarise(alphas, sparsity=sparsity, threshold=threshold, full_heads=full_heads)
    stream = TokenPolicy("sink-recent", sink, recent)
    rows = [[TokenPolicy() if head else stream for head in row] for row in full.tolist()]
    details = {"pattern": name, "sink": sink, "recent": recent, "sparsity": 1 - float(full.mean())}
    return policy_plan(name if storage == "native" else f"{name}-{storage}", rows, storage=storage, prefill=prefill, details=details, model=model)
