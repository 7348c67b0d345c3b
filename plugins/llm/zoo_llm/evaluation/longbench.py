"""LongBench-format tasks from local files.

A file is JSON lines with ``input``, ``context``, ``answers``, ``dataset``, ``all_classes`` (or null) and ``_id``; a folder holds one file per task.
The benchmark's own prompt
table (``dataset2prompt.json``) and length table (``dataset2maxlen.json``) are read from ``config`` when given; without them a plain prompt is used, and the
result says so.
"""

from __future__ import annotations

import difflib
import json
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo_core.errors import InputError
from zoo_core.interfaces import Sample
from zoo_llm.evaluation.needle import greedy

PLAIN_PROMPT = "{context}\n\n{input}\nAnswer:"


def normalise(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def f1(prediction: Sequence[str], truth: Sequence[str]) -> float:
    """F-measure of two bags of tokens."""
    common = sum((Counter(prediction) & Counter(truth)).values())
    return 0.0 if not common else 2 * common / (len(prediction) + len(truth))


def qa_f1(prediction: str, truth: str, **_: Any) -> float:
    """Word overlap after normalisation.

    >>> qa_f1("the red house", "red house")
    1.0
    """
    return f1(normalise(prediction).split(), normalise(truth).split())


def qa_f1_zh(prediction: str, truth: str, **_: Any) -> float:
    """Character overlap (Chinese; characters instead of a word segmenter)."""

    def characters(text: str) -> list[str]:
        return [c for c in text.lower() if c.isalnum()]

    return f1(characters(prediction), characters(truth))


def rouge_l(prediction: str, truth: str, **_: Any) -> float:
    """F-measure of the longest common subsequence of words."""
    a, b = prediction.split(), truth.split()
    if not a or not b:
        return 0.0
    row = [0] * (len(b) + 1)
    for word in a:
        previous = 0
        for j, other in enumerate(b, 1):
            previous, row[j] = row[j], previous + 1 if word == other else max(row[j], row[j - 1])
    return 2 * row[-1] / (len(a) + len(b))


def rouge_l_zh(prediction: str, truth: str, **_: Any) -> float:
    """``rouge_l`` over characters."""
    return rouge_l(" ".join(prediction.replace(" ", "")), " ".join(truth.replace(" ", "")))


def classification(prediction: str, truth: str, classes: Sequence[str] = (), **_: Any) -> float:
    """1 / number of classes named in the prediction, if the right one is among them (names contained in the right one do not count)."""
    named = [c for c in classes if c in prediction]
    named = [c for c in named if c == truth or c not in truth]
    return 1 / len(named) if truth in named else 0.0


def retrieval(prediction: str, truth: str, **_: Any) -> float:
    """Share of the numbers in the prediction that are the paragraph's number."""
    wanted = re.findall(r"\d+", truth)
    numbers = re.findall(r"\d+", prediction)
    return sum(n == wanted[0] for n in numbers) / len(numbers) if numbers and wanted else 0.0


def count(prediction: str, truth: str, **_: Any) -> float:
    """Share of the numbers in the prediction that equal the count."""
    numbers = re.findall(r"\d+", prediction)
    return sum(n == str(truth) for n in numbers) / len(numbers) if numbers else 0.0


def code_similarity(prediction: str, truth: str, **_: Any) -> float:
    """Similarity of the first code line of the prediction with the true line."""
    lines = [line for line in prediction.lstrip("\n").split("\n") if line.strip() and not any(mark in line for mark in ("`", "#", "//"))]
    return difflib.SequenceMatcher(None, lines[0] if lines else "", truth).ratio()


METRICS: dict[str, Callable[..., float]] = {
    **dict.fromkeys(("narrativeqa", "qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "musique", "triviaqa"), qa_f1),
    "multifieldqa_zh": qa_f1_zh,
    "dureader": rouge_l_zh,
    "vcsum": rouge_l_zh,
    **dict.fromkeys(("gov_report", "qmsum", "multi_news", "samsum"), rouge_l),
    **dict.fromkeys(("trec", "lsht"), classification),
    **dict.fromkeys(("passage_retrieval_en", "passage_retrieval_zh"), retrieval),
    "passage_count": count,
    **dict.fromkeys(("lcc", "repobench-p"), code_similarity),
}
FIRST_LINE_ONLY = ("trec", "triviaqa", "samsum", "lsht")


class LongBench:
    """Evaluator ``longbench``.

    Args:
        data: A ``.jsonl`` file or a folder of them.
        config: Folder with ``dataset2prompt.json`` and ``dataset2maxlen.json`` (optional).
        max_length: Longer prompts are cut in the middle to this many tokens.
        chunk: Prefill chunk.
        max_new_tokens: For tasks without an entry in the length table.
    """

    def __init__(self, data: str, config: str | None = None, max_length: int = 7500, chunk: int = 4096, max_new_tokens: int = 64) -> None:
        self.data, self.max_length, self.chunk, self.max_new_tokens = Path(data), max_length, chunk, max_new_tokens
        self.files = sorted(self.data.glob("*.jsonl")) if self.data.is_dir() else [self.data]
        if not self.files or not all(f.is_file() for f in self.files):
            raise InputError(f"longbench: no .jsonl file at {data!r}", fix="data=<file or folder with LongBench .jsonl files>")
        self.prompts = self._table(config, "dataset2prompt.json")
        self.lengths = self._table(config, "dataset2maxlen.json")

    @staticmethod
    def _table(config: str | None, name: str) -> dict[str, Any]:
        path = Path(config, name) if config else None
        return json.loads(path.read_text(encoding="utf-8")) if path and path.is_file() else {}

    def items(self, limit: int | None = None) -> Sequence[Mapping[str, Any]]:
        items = []
        for file in self.files:
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                    task = row.get("dataset") or file.stem
                    items.append({
                        "id": f"{task}-{row.get('_id', number)}", "task": task, "input": row["input"], "context": row["context"], "answers": row["answers"],
                        "classes": row.get("all_classes") or [],
                    })  # fmt: skip
                except (json.JSONDecodeError, KeyError) as error:
                    raise InputError(
                        f"longbench: {file.name} line {number} is not an item ({error})", fix="fields: input, context, answers, dataset, all_classes, _id"
                    ) from error
        return items[:limit]

    def generate(self, model: Any, items: Sequence[Mapping[str, Any]], folder: Path, *, seed: int) -> Iterable[Sample]:
        for item in items:
            text = self.prompts.get(item["task"], PLAIN_PROMPT).format(**{k: item[k] for k in ("input", "context")})
            ids = model.tokenizer(text)["input_ids"]
            if len(ids) > self.max_length:
                half = self.max_length // 2
                ids = [*ids[:half], *ids[-half:]]
            answer, size = greedy(model, ids, self.lengths.get(item["task"], self.max_new_tokens), self.chunk)
            kept = {k: item[k] for k in ("id", "task", "answers", "classes")}
            outputs = {
                "answer": model.tokenizer.decode(answer, skip_special_tokens=True),
                "cache_bytes": size,
                "plain_prompt": item["task"] not in self.prompts,
            }
            yield Sample(item["id"], kept, outputs)

    def score(self, samples: Sequence[Sample], folder: Path) -> Sequence[Sample]:
        for sample in samples:
            task, answer = sample.inputs["task"], sample.outputs["answer"]
            if task in FIRST_LINE_ONLY:
                answer = answer.lstrip("\n").split("\n")[0]
            metric = METRICS.get(task.removesuffix("_e"), qa_f1)
            sample.scores = {"score": 100 * max((metric(answer, truth, classes=sample.inputs["classes"]) for truth in sample.inputs["answers"]), default=0.0)}
        return samples

    def aggregate(self, samples: Sequence[Sample], folder: Path) -> Mapping[str, float]:
        by_task: dict[str, list[float]] = {}
        for sample in samples:
            by_task.setdefault(sample.inputs["task"], []).append(sample.scores["score"])
        means = {task: sum(v) / len(v) for task, v in by_task.items()}
        return {"score": sum(means.values()) / max(1, len(means)), **{f"score/{task}": value for task, value in means.items()}}
