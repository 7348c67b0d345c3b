"""Passkey retrieval: a number hidden in a long text, asked for at the end, scored teacher-forced.

Scoring takes the argmax at every answer token given the right prefix: an item is right when all answer tokens are.  One forward pass per item, no
sampling, and it
runs through the model's composed cache, in chunks.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo_core.errors import InputError
from zoo_core.interfaces import Sample
from zoo_llm.evaluation.text import load_text, token_stream

NEEDLE = "\n\nThe pass key is {key}. Remember it. {key} is the pass key.\n\n"
QUESTION = "\n\nWhat is the pass key? The pass key is"


class Passkey:
    """Evaluator ``passkey``.

    Args:
        lengths: Prompt lengths in tokens.
        repeats: Items per length, with different keys, depths and text.
        digits: Digits of the key.
        text: File or folder for the haystack (None: Python's documentation).
        chunk: Prefill chunk in tokens; with a streaming cache the chunks after the first show the policy (and with ``prefill="streaming"`` all do).
        decode_tail: Last prompt tokens that are fed one by one.
        seed: Seed of keys, depths and offsets.
    """

    def __init__(
        self,
        lengths: Sequence[int] = (1024,),
        repeats: int = 8,
        digits: int = 5,
        text: str | None = None,
        chunk: int = 1024,
        decode_tail: int = 0,
        seed: int = 0,
    ) -> None:
        if isinstance(lengths, int):
            lengths = (lengths,)
        if not lengths or min(lengths) < 128:
            raise InputError(f"passkey: lengths {list(lengths)} must be at least 128 tokens", fix="lengths=[1024,2048]")
        self.lengths, self.repeats, self.digits = tuple(lengths), repeats, digits
        self.text, self.chunk, self.decode_tail, self.seed = text, chunk, decode_tail, seed

    def items(self, limit: int | None = None) -> Sequence[Mapping[str, Any]]:
        items = []
        for length in self.lengths:
            for i in range(self.repeats):
                draw = random.Random(f"{self.seed}-{length}-{i}")
                key = "".join(draw.choice("0123456789") for _ in range(self.digits))
                depth = (i + 0.5) / self.repeats
                items.append({"id": f"{length}-{i}", "length": length, "key": key, "depth": depth, "offset": draw.randrange(20000)})
        return items[:limit]

    def build(self, tokenizer: Any, item: Mapping[str, Any], text: str) -> tuple[list[int], list[int]]:
        """Prompt ids (``item['length']`` tokens) and answer ids."""
        needle = tokenizer(NEEDLE.format(key=item["key"]), add_special_tokens=False)["input_ids"]
        question = tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
        answer = tokenizer(f" {item['key']}", add_special_tokens=False)["input_ids"]
        start = tokenizer("")["input_ids"]  # special tokens only
        room = item["length"] - len(needle) - len(question) - len(start)
        hay = token_stream(tokenizer, text, room, offset=item["offset"])
        cut = int(room * item["depth"])
        return [*start, *hay[:cut], *needle, *hay[cut:], *question], answer

    def generate(self, model: Any, items: Sequence[Mapping[str, Any]], folder: Path, *, seed: int) -> Iterable[Sample]:
        text = load_text(self.text)
        for item in items:
            prompt, answer = self.build(model.tokenizer, item, text)
            picked, size = predict(model, prompt, answer, chunk=self.chunk, decode_tail=self.decode_tail)
            yield Sample(item["id"], dict(item), {"answer": answer, "predicted": picked, "cache_bytes": size})

    def score(self, samples: Sequence[Sample], folder: Path) -> Sequence[Sample]:
        for sample in samples:
            hits = [a == b for a, b in zip(sample.outputs["answer"], sample.outputs["predicted"], strict=True)]
            sample.scores = {"accuracy": float(all(hits)), "digits": sum(hits) / len(hits)}
        return samples

    def aggregate(self, samples: Sequence[Sample], folder: Path) -> Mapping[str, float]:
        result = {name: sum(s.scores[name] for s in samples) / len(samples) for name in ("accuracy", "digits")}
        for length in sorted({s.inputs["length"] for s in samples}):
            group = [s for s in samples if s.inputs["length"] == length]
            result[f"accuracy@{length}"] = sum(s.scores["accuracy"] for s in group) / len(group)
            result[f"cache_bytes@{length}"] = float(max(s.outputs["cache_bytes"] for s in group))
        return result


def predict(model: Any, prompt: Sequence[int], answer: Sequence[int], *, chunk: int, decode_tail: int = 0) -> tuple[list[int], int]:
    """Argmax token at every answer position given the right prefix, and the cache bytes (0 when the cache does not report)."""
    import torch

    ids = torch.tensor([[*prompt, *answer]], device=model.device)
    cache = model.new_cache(reserve=ids.shape[1])
    head = ids[:, : len(prompt) - max(1, decode_tail)]
    picked: list[int] = []
    with torch.inference_mode():
        if head.shape[1]:
            model.prefill(head, torch.ones_like(head), cache, chunk=chunk)
        for i in range(head.shape[1], ids.shape[1] - 1):
            logits = model.module(input_ids=ids[:, i : i + 1], past_key_values=cache, use_cache=True, logits_to_keep=1).logits[0, -1]
            if i >= len(prompt) - 1:
                picked.append(int(logits.argmax()))
    return picked, cache.memory().used if hasattr(cache, "memory") else dynamic_bytes(cache)


def dynamic_bytes(cache: Any) -> int:
    """Bytes of a transformers cache whose layers hold ``keys`` and ``values``."""
    total = 0
    for layer in getattr(cache, "layers", ()):
        for tensor in (getattr(layer, "keys", None), getattr(layer, "values", None)):
            if tensor is not None:
                total += tensor.numel() * tensor.element_size()
    return total
