"""The example runs as a user would run it, and the learnt pattern is found by the model's name."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from zoo_duo_attention.patterns import binarise, find_pattern, pattern_of_model

EXAMPLE = Path(__file__).parents[3] / "examples" / "duo_long_context.py"


@pytest.mark.skipif(not EXAMPLE.is_file(), reason="the plugin stands outside the repository")
def test_long_context_example() -> None:
    spec = importlib.util.spec_from_file_location("duo_long_context", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = module.main(["--random", "--words", "60", "--tokens", "3"])
    assert [row["cache"] for row in rows] == ["full", "duo", "duo-kv4"]
    assert rows[0]["bytes"] > rows[1]["bytes"] > rows[2]["bytes"] > 0


def test_learnt_pattern_is_found_by_model_name() -> None:
    name = pattern_of_model("smollm2-135m-instruct")
    assert name == "SmolLM2-135M-Instruct"
    pattern = find_pattern(name)
    assert pattern.shape == (30, 3)
    assert (pattern.sink, pattern.recent, pattern.config["num_steps"]) == (16, 64, 70)
    assert int(binarise(pattern.alphas, threshold=0.5).sum()) == 36
    assert pattern_of_model("no-such-model") is None
