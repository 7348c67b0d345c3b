"""Patterns, the duo caches and the objective, on tiny models and the bundled published patterns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo_duo_attention import measure
from zoo_duo_attention.heatmap import draw_pattern
from zoo_duo_attention.patterns import binarise, binarise_legacy, bundled, find_pattern, random_pattern, read_pattern, write_pattern

from zoo_core.errors import CheckpointError, InputError
from zoo_core.loading import load

TINY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 512,
}


def tiny(**options: object):
    return load("smollm2-135m-instruct", weights="random", overrides=TINY, device="cpu", dtype="float32", **options)


def test_bundled_patterns_have_the_published_shape_and_statistics() -> None:
    assert {"Llama-2-7B-32K-Instruct", "Llama-3-8B-Instruct-Gradient-1048k"} <= set(bundled())
    llama2, llama3 = find_pattern("llama-2-7b-32k-instruct"), find_pattern("Llama-3-8B-Instruct-Gradient-1048k")
    assert llama2.shape == (32, 32)
    assert (llama2.sink, llama2.recent) == (128, 256)
    assert int((llama2.alphas == 1).sum()) == 145
    assert int((llama3.alphas == 1).sum()) == 82


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 1000).map(lambda n: n / 1000), st.integers(0, 10_000))
def test_deterministic_rule_has_the_published_count_and_respects_the_order(layers: int, heads: int, sparsity: float, seed: int) -> None:
    alphas = np.round(np.random.default_rng(seed).random((layers, heads)), 1)  # many ties
    full = binarise(alphas, sparsity=sparsity)
    assert full.sum() == binarise_legacy(alphas, sparsity, seed).sum()
    assert (full == binarise(alphas, sparsity=sparsity)).all()
    if full.any() and not full.all():
        assert alphas[full].min() >= alphas[~full].max()


def test_legacy_rule_leaves_the_callers_array_alone() -> None:
    alphas = np.ones((2, 2))
    binarise_legacy(alphas, 0.5, 42)
    assert (alphas == 1).all()


def test_rules_are_exclusive_and_checked() -> None:
    alphas = np.array([[0.2, 0.9]])
    assert binarise(alphas, threshold=0.9).tolist() == [[False, True]]
    assert binarise(alphas, full_heads=2).all()
    for bad in ({}, {"sparsity": 0.5, "threshold": 0.1}, {"sparsity": 1.5}, {"full_heads": 3}):
        with pytest.raises(InputError):
            binarise(alphas, **bad)


def test_pattern_directory_round_trip_and_bad_files(tmp_path: Path) -> None:
    alphas = np.array([[1.2, -0.1], [0.5, 1 / 3]])
    folder = write_pattern(tmp_path / "p", alphas, {"sink_size": 4, "recent_size": 8})
    again = read_pattern(folder)
    assert (again.raw == alphas).all()
    assert again.alphas.max() == 1
    assert again.alphas.min() == 0
    (folder / "config.json").write_text(json.dumps({"sink_size": 4}))
    with pytest.raises(CheckpointError, match="recent_size"):
        read_pattern(folder)
    (folder / "full_attention_heads.tsv").write_text("<html>")
    with pytest.raises(CheckpointError, match="table of numbers"):
        read_pattern(folder)
    with pytest.raises(CheckpointError, match="there is no"):
        read_pattern(tmp_path)
    with pytest.raises(InputError, match="neither bundled nor a path"):
        find_pattern("no-such-pattern")


def test_sizes_of_streaming_heads_come_from_the_options_then_from_the_pattern(tmp_path: Path) -> None:
    sizes = {"sink_size": 4, "recent_size": 8}
    plain = write_pattern(tmp_path / "plain", np.ones((2, 2)), sizes)
    deployed = write_pattern(tmp_path / "deployed", np.ones((2, 2)), sizes | {"deploy_sink_size": None, "deploy_recent_size": 16})

    def of(**options: object) -> tuple[int, int]:
        details = tiny(cache={"name": "duo", **options}).plan.details
        return details["sink"], details["recent"]

    assert of(pattern=str(plain)) == (4, 8)
    assert of(pattern=str(deployed)) == (4, 16)
    assert of(pattern=str(deployed), sink=1, recent=2) == (1, 2)
    assert of(pattern=np.ones((2, 2))) == (64, 256)
    assert find_pattern("SmolLM2-135M-Instruct").deploy == (16, 256)
    assert find_pattern("Llama-2-7B-32K-Instruct").deploy == (128, 256)


def test_load_with_duo_cache_and_storage_formats() -> None:
    pattern = np.array([[1.0, 0.0], [0.3, 0.8]])
    bytes_held = {}
    for name in ("duo", "duo-int8", "duo-kv4"):
        lm = tiny(cache={"name": name, "pattern": pattern, "sparsity": 0.5, "sink": 2, "recent": 4})
        result = lm.generate("a long enough prompt to fill the ring of the streaming heads", max_new_tokens=5)
        assert len(result.token_ids[0]) == 5
        bytes_held[name] = result.info["cache_bytes"]
    assert bytes_held["duo"] > bytes_held["duo-int8"] > bytes_held["duo-kv4"]
    full = tiny(cache="full").generate("a long enough prompt to fill the ring of the streaming heads", max_new_tokens=5)
    assert full.info["cache_bytes"] > bytes_held["duo"]


def test_all_heads_full_equals_no_cache_argument() -> None:
    lm = tiny(cache={"name": "duo", "pattern": np.ones((2, 2)), "sparsity": 0.0})
    plain = tiny()
    prompts = ["some words to go on from", "short"]
    assert lm.generate(prompts, max_new_tokens=6).token_ids == plain.generate(prompts, max_new_tokens=6).token_ids
    ours, theirs = lm.loglikelihood(["the same text twice"]), plain.loglikelihood(["the same text twice"])
    assert ours[0][0] == pytest.approx(theirs[0][0], abs=1e-3)


def test_wrong_shape_and_missing_pattern_are_explained() -> None:
    with pytest.raises(InputError, match=r"the pattern has 3 layers x 2 kv-heads, model 'smollm2-135m-instruct' has 2 x 2"):
        tiny(cache={"name": "duo", "pattern": np.ones((3, 2))})
    with pytest.raises(InputError, match="recent"):
        tiny(cache={"name": "duo", "pattern": np.ones((2, 2)), "recent": 0})


def test_random_baseline_has_the_same_number_of_full_heads() -> None:
    assert random_pattern((4, 3), 0.75).sum() == binarise(np.random.default_rng(1).random((4, 3)), sparsity=0.75).sum()


def test_memory_of_full_size_models_is_exact() -> None:
    # Llama-3-8B, fp16, full attention: 128 KiB per token
    assert measure.cache_bytes([[measure.TokenPolicy()] * 8] * 32, 1000) == 1000 * 128 * 1024
    half = measure.memory_ratio("llama-3-8b-1048k", 1_000_000)
    assert half["kv_ratio"] == pytest.approx(2.0, abs=0.01)
    four_bit = measure.cache_bytes(measure.rows_for("llama-3-8b-1048k"), 1_000_000, storage="int4") / 1_000_000
    assert four_bit == pytest.approx(17 * 1024, rel=0.01)  # fact sheet 2.7: about 17 KiB per token
    assert measure.capacity("llama-3-8b-1048k", 80e9, weight_bytes_per_parameter=1.0, storage="int4") > 3_300_000


def test_heat_map_is_a_picture(tmp_path: Path) -> None:
    from PIL import Image

    path = draw_pattern(find_pattern("Llama-3-8B-Instruct-Gradient-1048k").alphas, tmp_path / "map.png", title="x")
    with Image.open(path) as picture:
        assert min(picture.size) > 100
        assert len(set(picture.convert("L").tobytes())) > 20


def test_recipe_learns_resumes_and_writes_a_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo_duo_attention.training import recipe

    lm = tiny()
    monkeypatch.setattr("zoo_core.loading.load", lambda *a, **k: lm)
    common = {
        "output": str(tmp_path / "run"),
        "lr": 0.05,
        "sink": 2,
        "recent": 8,
        "reg_weight": 1.0,
        "context_length_min": 100,
        "context_length_max": 500,
        "intervals": 4,
        "num_passkeys": 2,
        "passkey_length": 2,
        "buffer_size": -300,
        "depth_intervals": 20,
        "tensorboard": False,
        "save_every": 2,
        "device": "cpu",
    }
    torch.manual_seed(0)
    first = recipe.train_heads(recipe.HeadsConfig(steps=12, **common))
    assert first["step"] == 12
    learnt = read_pattern(first["pattern"])
    assert learnt.shape == (2, 2)
    assert learnt.alphas.mean() < 0.9  # the regulariser closes gates that the task does not need
    assert (learnt.sink, learnt.recent) == (2, 8)
    more = recipe.train_heads(recipe.HeadsConfig(steps=14, **common))
    assert more["step"] == 14
    assert lm.module.config._attn_implementation == "sdpa"
    assert Path(more["picture"]).is_file()


@pytest.mark.parametrize(("length", "sink", "recent"), [(300, 16, 64), (321, 0, 7), (450, 100, 64), (90, 16, 64), (500, 3, 130)])
def test_linear_streaming_attention_equals_the_mask_with_gradients(length: int, sink: int, recent: int) -> None:
    import torch.nn.functional as F
    from zoo_duo_attention.training.objective import streaming_attention, streaming_mask

    generator = torch.Generator().manual_seed(length)
    q, k, v = (torch.randn(2, heads, length, 8, generator=generator, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2))
    ours = streaming_attention(q, k, v, sink=sink, recent=recent)
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=streaming_mask(length, sink, recent), enable_gqa=True)
    torch.testing.assert_close(ours, wanted)
    weight = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    for a, b in zip(torch.autograd.grad((ours * weight).sum(), (q, k, v)), torch.autograd.grad((wanted * weight).sum(), (q, k, v)), strict=True):
        torch.testing.assert_close(a, b)
