"""Per-head policy caches against transformers' own cache and against a direct mask."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache
from zoo_kernels import KernelError, use
from zoo_llm.caches import attention
from zoo_llm.caches.kernels import NONE, CacheKernels, KernelBinder
from zoo_llm.caches.layer import PolicyCache, PolicyLayer

from zoo_core.errors import InputError
from zoo_core.interfaces import KVCache, LayerState, TokenPolicy

FAMILIES = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
}
SINK, RECENT = 3, 5


def tiny(family: str = "llama") -> torch.nn.Module:
    config = AutoConfig.for_model(
        family,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=97,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
        **FAMILIES[family],
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention.register()).eval()


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return tiny()


def cache(storage: str = "native", *, streaming: str = "some", prefill: str = "streaming") -> PolicyCache:
    full, stream = TokenPolicy(), TokenPolicy("sink-recent", SINK, RECENT)
    rows = {"none": [[full, full]] * 2, "some": [[full, stream], [stream, stream]], "all": [[stream, stream]] * 2}[streaming]
    return PolicyCache([PolicyLayer(row, storage, prefill) for row in rows])


def run(model: torch.nn.Module, ids: torch.Tensor, past: object, calls: list[int], mask: torch.Tensor | None = None) -> torch.Tensor:
    outputs, done = [], 0
    with torch.inference_mode():
        for size in calls:
            end = done + size
            extra = {}
            if mask is not None:
                positions = (mask[:, :end].cumsum(-1) - 1).clamp_min(0)
                extra = {"attention_mask": mask[:, :end], "position_ids": positions[:, done:]}
            outputs.append(model(ids[:, done:end], past_key_values=past, use_cache=True, **extra).logits)
            done = end
    return torch.cat(outputs, dim=1)


def ids_of(batch: int, length: int) -> torch.Tensor:
    return torch.randint(2, 97, (batch, length), generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_full_heads_equal_transformers_own_cache(family: str) -> None:
    net = tiny(family)
    ids = ids_of(2, 23)
    ours = run(net, ids, cache(streaming="none"), [10, 6, 1, 1, 5])
    net.set_attn_implementation("sdpa")
    with torch.inference_mode():
        expected = net(ids).logits
    torch.testing.assert_close(ours, expected, atol=2e-6, rtol=0)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, 14), min_size=1, max_size=6))
def test_streaming_result_does_not_depend_on_how_tokens_are_cut_into_calls(model: torch.nn.Module, calls: list[int]) -> None:
    ids = ids_of(1, sum(calls))
    one_by_one = run(model, ids, cache(), [1] * sum(calls))
    torch.testing.assert_close(run(model, ids, cache(), calls), one_by_one, atol=4e-6, rtol=0)


def test_streaming_equals_a_direct_mask(model: torch.nn.Module) -> None:
    length = 40
    ids = ids_of(1, length)
    ours = run(model, ids, cache(streaming="all"), [length])
    q, k = torch.arange(length)[:, None], torch.arange(length)[None]
    visible = (k <= q) & ((k < SINK) | (q - k <= RECENT))
    model.set_attn_implementation("sdpa")
    try:
        with torch.inference_mode():
            expected = model(ids, attention_mask=visible[None, None]).logits
    finally:
        model.set_attn_implementation(attention.NAME)
    torch.testing.assert_close(ours, expected, atol=4e-6, rtol=0)


def test_long_prefill_in_blocks_equals_token_by_token(model: torch.nn.Module) -> None:
    ids = ids_of(1, 200)  # longer than one block of queries
    torch.testing.assert_close(run(model, ids, cache(streaming="all"), [200]), run(model, ids, cache(streaming="all"), [1] * 200), atol=4e-6, rtol=0)


@pytest.mark.parametrize("calls", [[9, 8, 1, 1], [19], [2, 2, 15]])
@pytest.mark.parametrize("prefill", ["streaming", "legacy"])
def test_left_padded_rows_equal_unpadded_ones(model: torch.nn.Module, calls: list[int], prefill: str) -> None:
    ids = ids_of(2, 19)
    pad = 4
    if prefill == "legacy" and calls[0] <= pad:
        pytest.skip("the unpadded row would have another first call")
    own_calls = [19 - pad] if prefill == "streaming" else [calls[0] - pad, *calls[1:]]
    alone = run(model, ids[:1, pad:], cache(prefill=prefill), own_calls)
    mask = torch.ones_like(ids)
    mask[0, :pad] = 0
    both = run(model, ids, cache(prefill=prefill), calls, mask)
    torch.testing.assert_close(both[:1, pad:], alone, atol=4e-6, rtol=0)
    torch.testing.assert_close(both[1:], run(model, ids[1:], cache(prefill=prefill), calls), atol=4e-6, rtol=0)


def test_right_padding_is_refused(model: torch.nn.Module) -> None:
    ids = ids_of(2, 6)
    mask = torch.ones_like(ids)
    mask[0, -2:] = 0
    with pytest.raises(InputError, match="padding on the right"):
        run(model, ids, cache(), [6], mask)


@pytest.mark.parametrize(("storage", "limit"), [("int8", 0.02), ("int4", 0.4)])
def test_quantised_storage_stays_close_and_small(model: torch.nn.Module, storage: str, limit: float) -> None:
    ids = ids_of(1, 30)
    exact_cache, small_cache = cache(), cache(storage)
    exact, small = run(model, ids, exact_cache, [20] + [1] * 10), run(model, ids, small_cache, [20] + [1] * 10)
    assert not torch.equal(exact, small)
    assert (exact - small).abs().max() < limit
    assert small_cache.memory().used < exact_cache.memory().used / (2 if storage == "int8" else 3)
    assert 0 < small_cache.memory().overhead < small_cache.memory().used


def test_streaming_memory_is_constant_and_true_length_grows(model: torch.nn.Module) -> None:
    past = cache(streaming="all")
    run(model, ids_of(1, 30), past, [30])
    before = past.memory()
    run(model, ids_of(1, 25), past, [25])
    after = past.memory()
    assert after.used == before.used == after.allocated
    assert past.get_seq_length() == 55
    per_token = 2 * 2 * 2 * 8 * 4  # layers, heads, key and value, dim, bytes
    assert after.used == per_token * (SINK + RECENT + 1)


def test_generate_greedy_beam_and_sampling_equal_own_cache(model: torch.nn.Module) -> None:
    ids = ids_of(2, 7)
    options = [{"do_sample": False}, {"do_sample": False, "num_beams": 3}]
    for option in options:
        ours = model.generate(ids, past_key_values=cache(streaming="none"), max_new_tokens=8, **option)
        theirs = model.generate(ids, past_key_values=DynamicCache(config=model.config), max_new_tokens=8, **option)
        assert torch.equal(ours, theirs), option


def test_assisted_decoding_equals_greedy_with_streaming_heads(model: torch.nn.Module) -> None:
    ids = ids_of(1, 24)
    assistant = tiny()
    with torch.no_grad():
        for parameter in assistant.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.02)
    assistant.set_attn_implementation("sdpa")
    plain = model.generate(ids, past_key_values=cache(), max_new_tokens=12, do_sample=False)
    past = cache()
    past.activate_past_recording()
    assisted = model.generate(ids, past_key_values=past, max_new_tokens=12, do_sample=False, assistant_model=assistant)
    assert torch.equal(plain, assisted)


def test_crop_restores_the_state_before_the_call(model: torch.nn.Module) -> None:
    ids = ids_of(1, 30)
    past = cache()
    past.activate_past_recording()
    run(model, ids[:, :24], past, [24])
    past.crop(0)
    run(model, ids[:, 24:], past, [6])
    past.crop(-4)
    assert past.get_seq_length() == 26
    again = run(model, ids[:, 26:], past, [4])
    torch.testing.assert_close(again, run(model, ids, cache(), [30])[:, 26:], atol=4e-6, rtol=0)


def test_crop_without_recording_is_refused_once_tokens_were_dropped(model: torch.nn.Module) -> None:
    past = cache()
    run(model, ids_of(1, 30), past, [30])
    with pytest.raises(InputError, match="activate_past_recording"):
        past.crop(-3)


def test_beams_with_streaming_heads_and_padding_report_their_true_scores(model: torch.nn.Module) -> None:
    """Beam search reorders rings and left-padded rows; the score it reports must be the one of the returned tokens, run alone."""
    ids, pad, new = ids_of(2, 20), 3, 9
    mask = torch.ones_like(ids)
    mask[0, :pad] = 0
    out = model.generate(
        ids, attention_mask=mask, past_key_values=cache(), num_beams=3, max_new_tokens=new, do_sample=False, return_dict_in_generate=True, output_scores=True
    )
    for row, start in enumerate((pad, 0)):
        tokens = out.sequences[row : row + 1, start:]
        logits = run(model, tokens, cache(), [tokens.shape[1]])
        picked = logits[0, -new - 1 : -1].log_softmax(-1).gather(-1, tokens[0, -new:, None])
        assert float(picked.sum()) / new == pytest.approx(float(out.sequences_scores[row]), abs=1e-5)


def test_sampling_several_sequences_shares_the_prompt(model: torch.nn.Module) -> None:
    ids = ids_of(1, 14)
    alone = model.generate(ids, past_key_values=cache(), max_new_tokens=6, do_sample=False)
    several = model.generate(ids.repeat(3, 1), past_key_values=cache(), max_new_tokens=6, do_sample=False)
    assert torch.equal(several, alone.expand(3, -1))


FORCED = dict.fromkeys(("head_policy_decode", "streaming_prefill", "int4_kv_decode"), "reference")


@pytest.mark.parametrize("storage", ["native", "int4", "int8"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("streaming", ["none", "some", "all"])
def test_bound_kernels_equal_the_ordinary_path(model: torch.nn.Module, storage: str, padded: bool, streaming: str) -> None:
    """Every op's definition in place of the grouped calls: same logits, ring not yet full, full, and padded."""
    ids = ids_of(2, 26)
    mask = torch.ones_like(ids) if padded else None
    if mask is not None:
        mask[0, :4] = 0
    calls = [1, 1, 6, 1, 1, 9, 1, 1, 1, 4]
    forced = cache(storage, streaming=streaming)
    plain = cache(storage, streaming=streaming)
    for layer, other in zip(forced.layers, plain.layers, strict=True):
        layer.binder, other.binder = KernelBinder(FORCED), Unbound()
    got, wanted = run(model, ids, forced, calls, mask), run(model, ids, plain, calls, mask)
    kernels = forced.layers[0].kernels
    assert all("reference" in kernels.names[op] for op in FORCED)
    assert plain.layers[0].kernels is NONE
    if padded:
        got, wanted = got[:, 4:], wanted[:, 4:]
    torch.testing.assert_close(got, wanted, atol=2e-3 if storage == "int4" else 4e-6, rtol=0)  # the ordinary path restores 4-bit values in float16


class Unbound(KernelBinder):
    def at(self, *_: object) -> CacheKernels:
        return NONE


def test_kernels_are_called_and_gradients_take_the_ordinary_path(model: torch.nn.Module) -> None:
    called = []

    def spy(name: str) -> object:
        from zoo_kernels import select

        function = select(name, choice="reference", dtype=torch.float32)
        return lambda *a, **k: (called.append(name), function(*a, **k))[1]

    class Spies(KernelBinder):
        def at(self, *_: object) -> CacheKernels:
            return CacheKernels(**{op: spy(op) for op in FORCED})

    past = cache()
    for layer in past.layers:
        layer.binder = Spies()
    run(model, ids_of(1, 12), past, [10, 1, 1])
    assert set(called) == {"head_policy_decode", "streaming_prefill"}
    past, seen = cache("int4"), len(called)
    for layer in past.layers:
        layer.binder = Spies()
    run(model, ids_of(1, 12), past, [10, 1, 1])
    assert set(called[seen:]) == {"int4_kv_decode", "streaming_prefill"}
    past, seen = cache(), len(called)
    for layer in past.layers:
        layer.binder = Spies()
    embeds = model.get_input_embeddings()(ids_of(1, 9)).detach().requires_grad_()
    model(inputs_embeds=embeds, past_key_values=past, use_cache=True).logits.sum().backward()
    assert len(called) == seen
    assert embeds.grad is not None
    assert float(embeds.grad.abs().sum()) > 0


def test_cpu_binds_only_what_measured_faster_unless_forced() -> None:
    device = torch.device("cpu")
    kernels = KernelBinder().at(device, torch.float32, 16)
    assert kernels.head_policy_decode is None
    assert kernels.streaming_prefill is None
    assert kernels.int4_kv_decode is not None
    assert "cpu" in kernels.names["int4_kv_decode"]
    with use(streaming_prefill="reference"):
        assert KernelBinder().at(device, torch.float32, 16).streaming_prefill is not None
    binder = KernelBinder({"head_policy_decode": "cpu"})
    assert binder.at(device, torch.float32, 16) is binder.at(device, torch.float32, 16)
    with pytest.raises(KernelError, match="no_such"):
        KernelBinder({"head_policy_decode": "no_such"}).at(device, torch.float32, 16)


def test_triton_kernels_in_the_interpreter_agree(tmp_path: object) -> None:
    """The path a GPU takes (own process: the interpreter must be switched on before Triton is imported)."""
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "data" / "triton_path.py")],
        env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["triton", "triton", "triton", "agree"]


def test_reset_reorder_and_protocols(model: torch.nn.Module) -> None:
    past = cache()
    ids = ids_of(2, 12)
    run(model, ids, past, [12])
    assert isinstance(past, KVCache)
    assert isinstance(past.layers[0], LayerState)
    past.reorder_cache(torch.tensor([1, 1]))
    more = ids_of(1, 3).expand(2, -1)
    swapped = run(model, more, past, [3])
    torch.testing.assert_close(swapped[0], swapped[1])
    past.reset()
    assert past.get_seq_length() == 0
    assert past.memory().used == 0


def test_append_without_commit_shows_tokens_but_keeps_nothing() -> None:
    layer = PolicyLayer([TokenPolicy(), TokenPolicy()])
    first = torch.randn(1, 2, 4, 8)
    layer.append(first, first)
    seen, _ = layer.append(first, first, commit=False)
    assert seen.shape[-2] == 8
    assert layer.length == 4


def test_unknown_policy_storage_and_head_count_are_refused(model: torch.nn.Module) -> None:
    with pytest.raises(InputError, match="policy"):
        PolicyLayer([TokenPolicy("snap")])
    with pytest.raises(InputError, match="storage format"):
        PolicyLayer([TokenPolicy()], "int3")
    with pytest.raises(InputError, match="kv-heads"):
        run(model, ids_of(1, 3), PolicyCache([PolicyLayer([TokenPolicy()] * 3)] * 2), [3])
