"""Needle in a haystack: a grid of context lengths and depths, ROUGE-1 of the answer against the needle, and a heat-map."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo_core.errors import InputError
from zoo_core.interfaces import Sample
from zoo_llm.evaluation.text import load_text, token_stream

NEEDLE = "Remember, the best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a sunny day."
QUESTION = (
    " </book>.\n\nQuestion: Based on the content of the book, what is the best thing to do in San Francisco?\n\n"
    "Answer: The best thing to do in San Francisco is"
)
OPENING = "<|im_start|> This is a very long story book: <book> "


def rouge1(answer: str, reference: str) -> float:
    """F-measure of unigram overlap.

    >>> rouge1("eat a sandwich", "eat a sandwich")
    1.0
    """
    a, b = (Counter(re.findall(r"[a-z0-9]+", text.lower())) for text in (answer, reference))
    common = sum((a & b).values())
    if not common:
        return 0.0
    precision, recall = common / sum(a.values()), common / sum(b.values())
    return 2 * precision * recall / (precision + recall)


class Needle:
    """Evaluator ``needle`` (protocol of the DuoAttention fact sheet: 10 x ROUGE-1 F of up to 51 greedy tokens against the needle).

    Args:
        min_length, max_length: Context lengths in tokens, ``lengths`` evenly spaced values.
        depths: Number of depths from 0 to 100 %.
        chunk: Prefill chunk.
        text: Haystack file or folder.
    """

    def __init__(
        self,
        min_length: int = 1024,
        max_length: int = 8000,
        lengths: int = 13,
        depths: int = 10,
        chunk: int = 4096,
        text: str | None = None,
        max_new_tokens: int = 51,
    ) -> None:
        if not 256 <= min_length <= max_length or lengths < 1 or depths < 1:
            raise InputError(
                f"needle: min_length={min_length}, max_length={max_length}, lengths={lengths}, depths={depths} make no grid",
                fix="min_length=1024 max_length=8000",
            )
        self.lengths = [round(min_length + (max_length - min_length) * i / max(1, lengths - 1)) for i in range(lengths)]
        self.depths = [round(100 * i / max(1, depths - 1)) for i in range(depths)]
        self.chunk, self.text, self.max_new_tokens = chunk, text, max_new_tokens

    def items(self, limit: int | None = None) -> Sequence[Mapping[str, Any]]:
        return [{"id": f"{length}-{depth}", "length": length, "depth": depth} for length in self.lengths for depth in self.depths][:limit]

    def generate(self, model: Any, items: Sequence[Mapping[str, Any]], folder: Path, *, seed: int) -> Iterable[Sample]:
        text = load_text(self.text)
        tokenizer = model.tokenizer
        for item in items:
            opening = tokenizer(OPENING)["input_ids"]
            needle = tokenizer(f"\n\n{NEEDLE}\n\n", add_special_tokens=False)["input_ids"]
            question = tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
            room = item["length"] - len(opening) - len(needle) - len(question) - self.max_new_tokens
            hay = token_stream(tokenizer, text, room)
            cut = room * item["depth"] // 100
            ids = [*opening, *hay[:cut], *needle, *hay[cut:], *question]
            answer, size = greedy(model, ids, self.max_new_tokens, self.chunk)
            yield Sample(item["id"], dict(item), {"answer": tokenizer.decode(answer, skip_special_tokens=True), "cache_bytes": size})

    def score(self, samples: Sequence[Sample], folder: Path) -> Sequence[Sample]:
        for sample in samples:
            sample.scores = {"score": 10 * rouge1(sample.outputs["answer"], NEEDLE)}
        return samples

    def aggregate(self, samples: Sequence[Sample], folder: Path) -> Mapping[str, float]:
        heatmap(samples, folder / "needle.png")
        return {"score": sum(s.scores["score"] for s in samples) / len(samples), "cells": float(len(samples))}


def greedy(model: Any, ids: Sequence[int], new: int, chunk: int) -> tuple[list[int], int]:
    """Greedy continuation through the composed cache; stops at the end-of-text token or a newline token."""
    import torch

    from zoo_llm.evaluation.passkey import dynamic_bytes

    prompt = torch.tensor([list(ids)], device=model.device)
    cache = model.new_cache(reserve=prompt.shape[1] + new)
    logits = model.prefill(prompt, torch.ones_like(prompt), cache, chunk=chunk)
    ends = {model.tokenizer.eos_token_id}
    out: list[int] = []
    with torch.inference_mode():
        for _ in range(new):
            token = int(logits[0].argmax())
            if token in ends or "\n" in model.tokenizer.decode([token]):
                break
            out.append(token)
            logits = model.module(input_ids=torch.tensor([[token]], device=model.device), past_key_values=cache, use_cache=True).logits[:, -1]
    return out, cache.memory().used if hasattr(cache, "memory") else dynamic_bytes(cache)


def heatmap(samples: Sequence[Sample], path: Path) -> None:
    """Length x depth picture of the scores (red 0, green 10), drawn with Pillow."""
    from PIL import Image, ImageDraw

    lengths = sorted({s.inputs["length"] for s in samples})
    depths = sorted({s.inputs["depth"] for s in samples})
    cell, left, top = 44, 60, 24
    picture = Image.new("RGB", (left + cell * len(lengths) + 8, top + cell * len(depths) + 30), "white")
    draw = ImageDraw.Draw(picture)
    for sample in samples:
        x = left + cell * lengths.index(sample.inputs["length"])
        y = top + cell * depths.index(sample.inputs["depth"])
        share = min(1.0, sample.scores["score"] / 10)
        draw.rectangle((x, y, x + cell - 2, y + cell - 2), fill=(int(220 - 150 * share), int(70 + 120 * share), 80))
        draw.text((x + 8, y + 14), f"{sample.scores['score']:.1f}", fill="white")
    for i, depth in enumerate(depths):
        draw.text((8, top + cell * i + 14), f"{depth} %", fill="black")
    for i, length in enumerate(lengths):
        draw.text((left + cell * i + 4, top + cell * len(depths) + 8), str(length), fill="black")
    draw.text((left, 6), "needle score by context length (tokens) and depth", fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
