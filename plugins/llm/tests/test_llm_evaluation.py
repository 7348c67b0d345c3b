"""Text evaluators on a tiny random model, and the LongBench metrics against their definitions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from zoo_llm.evaluation import longbench
from zoo_llm.evaluation.needle import Needle, rouge1
from zoo_llm.evaluation.passkey import Passkey
from zoo_llm.evaluation.perplexity import Perplexity

from zoo_core.errors import InputError
from zoo_core.interfaces import Sample
from zoo_core.loading import load

TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 1024,
}


@pytest.fixture(scope="module")
def lm() -> Any:
    return load("smollm2-135m-instruct", weights="random", overrides=TINY, device="cpu", dtype="float32", cache="full")


def run(test: Any, lm: Any, folder: Path, limit: int | None = None) -> tuple[list[Sample], dict[str, float]]:
    samples = list(test.score(list(test.generate(lm, test.items(limit), folder, seed=0)), folder))
    return samples, dict(test.aggregate(samples, folder))


def test_passkey_prompts_hold_the_key_and_scores_come_from_outputs(lm: Any, tmp_path: Path) -> None:
    test = Passkey(lengths=[300], repeats=2)
    assert test.items() == Passkey(lengths=[300], repeats=2).items()
    prompt, answer = test.build(lm.tokenizer, test.items()[0], "hay " * 400)
    assert len(prompt) == 300
    assert lm.tokenizer.decode(prompt).count(test.items()[0]["key"]) == 2
    assert lm.tokenizer.decode(answer).strip() == test.items()[0]["key"]
    samples, result = run(test, lm, tmp_path)
    assert result["cache_bytes@300"] == (300 + len(answer) - 1) * 2 * 2 * 2 * 8 * 4
    samples[0].outputs["predicted"] = list(samples[0].outputs["answer"])
    samples[1].outputs["predicted"] = [-1] * len(answer)
    assert test.aggregate(test.score(samples, tmp_path), tmp_path)["accuracy"] == 0.5
    with pytest.raises(InputError):
        Passkey(lengths=[10])


def test_perplexity_is_the_exponential_of_the_mean(lm: Any, tmp_path: Path) -> None:
    samples, result = run(Perplexity(length=128, windows=2, chunk=50), lm, tmp_path)
    assert [s.outputs["tokens"] for s in samples] == [64, 64]
    assert 150 < result["perplexity"] < 600  # an untrained model over 300 tokens


def test_needle_grid_writes_a_heat_map(lm: Any, tmp_path: Path) -> None:
    from PIL import Image

    samples, result = run(Needle(600, 700, lengths=2, depths=2, max_new_tokens=2), lm, tmp_path)
    assert len(samples) == result["cells"] == 4
    with Image.open(tmp_path / "needle.png") as picture:
        assert min(picture.size) > 80
    assert rouge1("eat a sandwich", "eat the sandwich now") == pytest.approx(2 * (2 / 3 * 2 / 4) / (2 / 3 + 2 / 4))


def test_longbench_metrics() -> None:
    assert longbench.qa_f1("The red house!", "a red barn") == 0.5
    assert longbench.rouge_l("a b c d", "a c d e") == pytest.approx(0.75)
    assert longbench.rouge_l_zh("ab", "ab") == 1
    assert longbench.classification("it is Food or City", "Food", classes=["Food", "City", "Date"]) == 0.5
    assert longbench.classification("nothing", "Food", classes=["Food"]) == 0
    assert longbench.retrieval("Paragraph 3 and 4", "Paragraph 3") == 0.5
    assert longbench.count("there are 7", "7") == 1
    assert longbench.code_similarity("# note\nreturn x\n", "return x") == 1
    assert longbench.qa_f1_zh("北京", "北京市") == pytest.approx(0.8)


def test_longbench_runs_local_files(lm: Any, tmp_path: Path) -> None:
    rows = [
        {"input": "who?", "context": "long " * 200, "answers": ["me"], "dataset": "hotpotqa", "all_classes": None, "_id": "1"},
        {"input": "kind?", "context": "x", "answers": ["A"], "dataset": "trec", "all_classes": ["A", "B"], "_id": "2"},
    ]
    file = tmp_path / "tasks.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    samples, result = run(longbench.LongBench(str(file), max_length=100, max_new_tokens=3), lm, tmp_path)
    assert [s.inputs["task"] for s in samples] == ["hotpotqa", "trec"]
    assert all(s.outputs["plain_prompt"] for s in samples)
    assert result["score"] == pytest.approx((result["score/hotpotqa"] + result["score/trec"]) / 2)
    samples[1].outputs["answer"] = "\nA\nB"  # only the first line counts for this task
    assert longbench.LongBench(str(file)).score(samples, tmp_path)[1].scores["score"] == 100
    file.write_text('{"input": 1}')
    with pytest.raises(InputError, match="line 1"):
        longbench.LongBench(str(file)).items()
    with pytest.raises(InputError, match=r"no \.jsonl"):
        longbench.LongBench(str(tmp_path / "nothing"))
