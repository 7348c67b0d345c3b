"""Perplexity on long text through the composed cache."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo_core.interfaces import Sample
from zoo_llm.evaluation.text import load_text, token_stream


class Perplexity:
    """Evaluator ``perplexity``: exp of the mean negative log-likelihood per token.

    Args:
        length: Tokens per window.
        windows: Number of windows, cut one after another out of the text.
        score_last: Share of each window that is scored (the rest is context).
        text: File or folder (None: Python's documentation).
        chunk: Tokens per forward call.
        offset: First token of the first window.
    """

    def __init__(self, length: int = 1024, windows: int = 4, score_last: float = 0.5, text: str | None = None, chunk: int = 1024, offset: int = 0) -> None:
        self.length, self.windows, self.score_last = length, windows, score_last
        self.text, self.chunk, self.offset = text, chunk, offset

    def items(self, limit: int | None = None) -> Sequence[Mapping[str, Any]]:
        return [{"id": f"window-{i}", "offset": self.offset + i * self.length, "length": self.length} for i in range(self.windows)][:limit]

    def generate(self, model: Any, items: Sequence[Mapping[str, Any]], folder: Path, *, seed: int) -> Iterable[Sample]:
        import torch

        text = load_text(self.text)
        for item in items:
            ids = torch.tensor([token_stream(model.tokenizer, text, item["length"], offset=item["offset"])], device=model.device)
            start = max(1, int(item["length"] * (1 - self.score_last)))
            total, count = model.score(ids, start=start, chunk=self.chunk)
            yield Sample(item["id"], dict(item), {"log_likelihood": total, "tokens": count})

    def score(self, samples: Sequence[Sample], folder: Path) -> Sequence[Sample]:
        for sample in samples:
            sample.scores = {"nats_per_token": -sample.outputs["log_likelihood"] / sample.outputs["tokens"]}
        return samples

    def aggregate(self, samples: Sequence[Sample], folder: Path) -> Mapping[str, float]:
        tokens = sum(s.outputs["tokens"] for s in samples)
        nats = -sum(s.outputs["log_likelihood"] for s in samples) / tokens
        return {"perplexity": math.exp(nats), "nats_per_token": nats, "tokens": float(tokens)}
