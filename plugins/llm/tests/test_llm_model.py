"""The ``LanguageModel`` handle and what it is composed of, on tiny random models."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from zoo_core.errors import InputError
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


def tiny(**options: Any) -> Any:
    return load("smollm2-135m-instruct", weights="random", overrides=TINY, device="cpu", dtype="float32", **options)


@pytest.fixture(scope="module")
def lm() -> Any:
    return tiny()


def test_batches_equal_single_prompts(lm: Any) -> None:
    prompts = ["some words to go on from", "short"]
    together = lm.generate(prompts, max_new_tokens=6)
    assert together.token_ids == [lm.generate(p, max_new_tokens=6).token_ids[0] for p in prompts]
    assert together.info["prompt_tokens"] == len("".join(prompts))
    assert together.info["new_tokens"] == 12


def test_stream_gives_the_same_text(lm: Any) -> None:
    assert "".join(lm.stream("once upon", max_new_tokens=8)) == lm.generate("once upon", max_new_tokens=8).texts[0]


def test_stream_hands_errors_to_the_reader(lm: Any) -> None:
    with pytest.raises(InputError, match="max_new_tokens"):
        list(lm.stream("x", max_new_tokens=0))


def test_sampling_is_seeded_and_leaves_the_global_state(lm: Any) -> None:
    state = torch.get_rng_state()
    first, again, other = (lm.generate("a b c", temperature=1.0, seed=s, max_new_tokens=12).token_ids for s in (1, 1, 2))
    assert first == again
    assert first != other
    assert torch.equal(state, torch.get_rng_state())


def test_stop_strings_are_cut_off(lm: Any) -> None:
    text = lm.generate("abc", max_new_tokens=12).texts[0]
    mark = next(c for c in text if c.isascii() and c.isprintable())
    assert lm.generate("abc", max_new_tokens=12, stop=[mark]).texts[0] == text.split(mark)[0]


@pytest.mark.parametrize("cache", [None, "full"])
def test_beams_agree_with_transformers(cache: str | None) -> None:
    handle = tiny(cache=cache)
    ours = handle.generate("beam me", max_new_tokens=5, num_beams=3).token_ids[0]
    plain = tiny()
    ids, mask = plain.encode("beam me")
    theirs = plain.module.generate(ids, attention_mask=mask, num_beams=3, max_new_tokens=5, do_sample=False, pad_token_id=258)
    assert ours == theirs[0, ids.shape[1] :].tolist()


def test_chat_goes_through_the_template(lm: Any) -> None:
    template = lm.tokenizer.chat_template
    lm.tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}>"
    try:
        chat, text = lm.encode([{"role": "user", "content": "hi"}])[0], lm.encode("[user]hi>")[0]
    finally:
        lm.tokenizer.chat_template = template
    assert torch.equal(chat, text)


@pytest.mark.parametrize("cache", [None, "full"])
def test_loglikelihood_does_not_depend_on_the_chunk_and_equals_one_forward(cache: str | None) -> None:
    handle = tiny(cache=cache)
    text = "the quick brown fox jumps"
    values = [handle.loglikelihood([text], chunk=c)[0][0] for c in (4, 7, 100)]
    ids = torch.tensor([handle.tokenizer(text)["input_ids"]])
    with torch.inference_mode():
        scores = tiny().module(ids).logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None]).sum()
    assert values == pytest.approx([float(scores)] * 3, abs=1e-3)
    whole, count = handle.loglikelihood(["fox"], context=["the quick "])[0]
    assert count == 3
    assert whole < 0


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("", {}, "prompt is empty"),
        ([], {}, "prompt is empty"),
        ("x" * 600, {}, "exceed its trained length 512"),
        ("x", {"max_new_tokens": 0}, "max_new_tokens"),
        ("x", {"temperature": -1.0}, "temperature"),
        ("x", {"top_p": 0.0}, "top_p"),
    ],
)
def test_bad_requests_are_explained(lm: Any, prompt: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        lm.generate(prompt, **options)


@pytest.mark.parametrize("options", [{"no_such_option": 1}, {"quant": "int3"}, {"adapter": "nothing:x"}, {"rope": "linear"}, {"rope": "spiral:2"}])
def test_unknown_parts_are_explained(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        tiny(**options)


def test_position_scaling_lengthens_the_context() -> None:
    assert tiny(rope="linear:4").module.config.max_position_embeddings == 2048
    yarn = tiny(rope="yarn:2").module.config
    assert (yarn.max_position_embeddings, yarn.rope_parameters["original_max_position_embeddings"]) == (1024, 512)
    scaled = tiny(rope="linear:4").module.model.rotary_emb.inv_freq
    assert torch.allclose(scaled * 4, tiny().module.model.rotary_emb.inv_freq)
    assert tiny(rope="theta:5e5").module.config.rope_parameters["rope_theta"] == 5e5


def test_int8_weights_stay_close() -> None:
    pytest.importorskip("torchao")
    plain, quantised = tiny(), tiny(quant="int8")
    ids = plain.encode("the same words")[0]
    with torch.inference_mode():
        a, b = plain.module(ids).logits, quantised.module(ids).logits
    assert not torch.equal(a, b)
    assert (a - b).abs().max() < 0.1 * a.abs().max()


def test_peft_adapter_is_applied(tmp_path: Path, lm: Any) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(tiny().module, settings)
    adapted.save_pretrained(tmp_path / "adapter")
    ids = lm.encode("adapt this")[0]
    merged = tiny(adapter=f"peft:{tmp_path / 'adapter'}")
    with torch.inference_mode():
        wanted, got, base = adapted.eval()(ids).logits, merged.module(ids).logits, lm.module(ids).logits
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)
    assert (got - base).abs().max() > 1e-3
    with pytest.raises(InputError, match=r"adapter_config\.json"):
        tiny(adapter=f"peft:{tmp_path}")


def test_pickle_round_trip() -> None:
    handle = tiny()
    again = pickle.loads(pickle.dumps(handle.module))
    ids = handle.encode("pickle")[0]
    with torch.inference_mode():
        assert torch.equal(again(ids).logits, handle.module(ids).logits)


@pytest.mark.slow
def test_real_model_knows_the_capital_of_france() -> None:
    home = Path(os.environ.get("ZOO_HOME", Path.home() / ".cache" / "zoo"))
    if not list(home.glob("converted/SmolLM2-135M-Instruct*")):
        pytest.skip("the converted SmolLM2-135M is not in the cache: zoo pull smollm2-135m-instruct, then load it once")
    handle = load("smollm2-135m-instruct", device="cpu", dtype="float32")
    assert "Paris" in handle.generate("The capital of France is", max_new_tokens=6).texts[0]
