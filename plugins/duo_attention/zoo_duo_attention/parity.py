"""Handlers of the recorded cases (kinds of the paper ``duo-attention``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zoo_core.parity import Check, ParityCase, Tolerance

EXACT = Tolerance(exact=True)


def _load(case: ParityCase) -> Any:
    """The case's checkpoint as a language model handle, through the loading code users call."""
    from zoo_core.loading import load

    return load("llama-3-8b-1048k", weights=case.path, device="cpu", dtype="float32", cache="dynamic")


def inference(case: ParityCase) -> Iterator[Check]:
    """Chunked calls, decode steps, cache contents."""
    import numpy as np
    import torch

    from zoo_duo_attention.cache import duo_plan

    duo = case.json("config.json")["duo"]
    io = case.tensors("io.safetensors")
    handle = _load(case)
    ids = io["input_ids"].long()
    heads = io["full_attention_heads"].numpy().astype(np.float64)

    def run(calls: list[int], prefill: str, watch: bool = False) -> Iterator[Any]:
        handle.set_cache(duo_plan(handle, pattern=heads, threshold=0.5, sink=duo["sink_size"], recent=duo["recent_size"], prefill=prefill))
        cache, done = handle.new_cache(), 0
        with torch.inference_mode():
            for number, size in enumerate(calls):
                hidden = handle.module.base_model(input_ids=ids[:, done : done + size], past_key_values=cache, use_cache=True).last_hidden_state
                done += size
                yield number, hidden, handle.module.lm_head(hidden), cache

    tolerance = Tolerance(abs=2e-5)
    for calls, prefill, name in (
        (list(duo["calls"]), "legacy", "duo.logits"),
        ([ids.shape[1]], "legacy", "duo.logits_single_call"),
        ([1] * ids.shape[1], "legacy", "duo.logits_token_by_token"),
        ([ids.shape[1]], "streaming", "duo.logits_token_by_token"),
        (list(duo["calls"]), "streaming", "duo.logits_token_by_token"),
    ):
        hiddens, logits = [], []
        for number, hidden, out, cache in run(calls, prefill):
            hiddens.append(hidden)
            logits.append(out)
            if name == "duo.logits":
                yield from _cache_checks(io, number, cache)
        if name in io:
            yield Check(f"{name} [{prefill}, {len(calls)} calls]", torch.cat(logits, 1), io[name], tolerance)
        if name == "duo.logits" and "duo.hidden" in io:
            yield Check("duo.hidden", torch.cat(hiddens, 1), io["duo.hidden"], tolerance)
    from zoo_llm.caches.plan import dynamic_plan

    handle.set_cache(dynamic_plan(handle))
    with torch.inference_mode():
        yield Check("full_attention.logits", handle.module(input_ids=ids).logits, io["full_attention.logits"], tolerance)
    if "streaming_mask" in io:
        yield Check("streaming_mask", call_mask(duo["calls"], duo["sink_size"], duo["recent_size"]), io["streaming_mask"].bool())


def _cache_checks(io: Any, call: int, cache: Any) -> Iterator[Check]:
    import torch

    for index, layer in enumerate(cache.layers):
        for group in layer.groups:
            kind = "stream" if group.streaming else "full"
            for i, letter in enumerate("kv"):
                key = f"cache.after_call{call}.layer{index}.{kind}_{letter}"
                if key in io:
                    stored = group.store.ordered(i, torch.float32) if group.streaming else group.store.values(i, torch.float32)
                    yield Check(key, stored, io[key], Tolerance(abs=2e-5))


def call_mask(calls: list[int], sink: int, recent: int) -> Any:
    """What a streaming head may see under the legacy rule, bool [tokens, tokens]: the columns a cache holds plus the call's own."""
    import torch

    total = sum(calls)
    columns = torch.arange(total)
    starts = torch.cat([torch.full((n,), s) for n, s in zip(calls, torch.tensor([0, *calls[:-1]]).cumsum(0).tolist(), strict=True)])
    q, k, c = columns[:, None], columns[None, :], starts[:, None]
    return (k <= q) & ((k >= c) | (k < sink) | (k >= c - recent))


def train_steps(case: ParityCase) -> Iterator[Check]:
    """Three optimiser steps of head identification."""
    import torch

    from zoo_duo_attention.training.objective import HeadGates, identification, losses, lr_factor, streaming_mask, two_way

    settings = case.json("config.json")["duo_train"]
    io = case.tensors("io.safetensors")
    model = _load(case).module
    gates = HeadGates.for_model(model)
    gates.alphas.data.copy_(io["alphas.initial"])
    optimiser = torch.optim.AdamW(gates.parameters(), lr=settings["lr"], weight_decay=0.0)
    steps = settings["num_steps"]
    with identification(model):
        for s in range(settings["steps_recorded"]):
            rate = settings["lr"] * lr_factor(s, steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            yield Check(f"step{s}.lr", rate, float(io["lr_used"][s]), Tolerance(rel=1e-6))
            gates.clamp_()
            yield Check(f"step{s}.alphas_clamped", gates.alphas.detach().clone(), io[f"step{s}.alphas_clamped"], Tolerance(abs=2e-5))
            ids, labels = io[f"step{s}.input_ids"].long(), io[f"step{s}.labels"].long()
            teacher, student = two_way(model, gates, ids, sink=settings["sink_size"], recent=settings["recent_size"])
            result = losses(teacher, student, labels, gates, settings["reg_weight"])
            result["loss"].backward()
            yield Check(f"step{s}.hidden_full", teacher, io[f"step{s}.hidden_full"], Tolerance(abs=2e-5))
            yield Check(f"step{s}.hidden_mixed", student.detach(), io[f"step{s}.hidden_mixed"], Tolerance(abs=2e-5))
            for ours, theirs in (("distill", "distill_loss"), ("reg", "reg_loss"), ("loss", "loss")):
                yield Check(f"step{s}.{theirs}", result[ours].detach().reshape(1), io[f"step{s}.{theirs}"].reshape(1), Tolerance(abs=1e-5))
            assert gates.alphas.grad is not None
            yield Check(f"step{s}.alphas_grad", gates.alphas.grad.clone(), io[f"step{s}.alphas_grad"], Tolerance(abs=2e-6))
            optimiser.step()
            optimiser.zero_grad()
            yield Check(f"step{s}.alphas_after", gates.alphas.detach().clone(), io[f"step{s}.alphas_after"], Tolerance(abs=2e-5))
    if "lr_factor_2000" in io:
        ours = torch.tensor([lr_factor(s, 2000) for s in range(2000)], dtype=torch.float64)
        yield Check("lr_factor_2000", ours, io["lr_factor_2000"], Tolerance(abs=1e-12))
    if "streaming_mask" in io:
        size = io["streaming_mask"].shape[-1]
        yield Check("streaming_mask", streaming_mask(size, settings["sink_size"], settings["recent_size"]), io["streaming_mask"].bool())


def int4_kv(case: ParityCase) -> Iterator[Check]:
    """4-bit codes, scales and zeros."""
    import torch
    from zoo_llm.caches.storage import Int4Storage

    io = case.tensors("io.safetensors")
    storage = Int4Storage(group=case.json("config.json")["group_size"])
    packed, scale, zero = storage.encode(io["x"])
    yield Check("packed", packed, io["packed"])
    yield Check("scale", scale, io["scale"])
    yield Check("zero_point", zero, io["zero_point"])
    decoded = storage.decode((packed, scale, zero), torch.float16)
    yield Check("dequantized", decoded, io["dequantized"], Tolerance(rel=2**-10, abs=2**-20))


def pattern_dir(case: ParityCase) -> Iterator[Check]:
    """Clipped alphas and the published binarisation."""
    import torch

    from zoo_duo_attention.patterns import binarise_legacy, read_pattern

    pattern = read_pattern(case.path)
    io = case.tensors("io.safetensors")
    yield Check("alphas", torch.from_numpy(pattern.alphas), io["alphas"])
    config = case.json("config.json")
    yield Check("sizes", [pattern.sink, pattern.recent], [config["sink_size"], config["recent_size"]])
    for key, expected in io.items():
        if key.startswith("binary_s"):
            sparsity, seed = key.removeprefix("binary_s").split("_seed")
            yield Check(key, torch.from_numpy(binarise_legacy(pattern.alphas, int(sparsity) / 1000, int(seed))), expected.bool())


def published_patterns(case: ParityCase) -> Iterator[Check]:
    """Published values, the legacy rule bit for bit, and what the deterministic rule must agree with."""
    import numpy as np
    import torch

    from zoo_duo_attention.patterns import binarise, binarise_legacy

    io = case.tensors("io.safetensors")
    for name in case.json("config.json"):
        alphas = np.clip(io[f"{name}.alphas_raw"].double().numpy(), 0, 1)
        yield Check(f"{name}.alphas", torch.from_numpy(alphas), io[f"{name}.alphas"])
        for key in (k for k in io if k.startswith(f"{name}.binary_s")):
            sparsity, seed = key.rpartition(".binary_s")[2].split("_seed")
            share = int(sparsity) / 1000
            yield Check(key, torch.from_numpy(binarise_legacy(alphas, share, int(seed))), io[key].bool())
            full = binarise(alphas, sparsity=share)
            yield Check(f"{key} count", int(full.sum()), int(io[key].sum()))
            must_full, must_stream = (io.get(f"{name}.must_{kind}_s{sparsity}") for kind in ("full", "stream"))
            if must_full is not None and must_stream is not None:
                agrees = bool(full[must_full.numpy().astype(bool)].all()) and not full[must_stream.numpy().astype(bool)].any()
                yield Check(f"{name} must sets at {share}", agrees, True)


def learnt_pattern(case: ParityCase) -> Iterator[Check]:
    """A pattern learnt elsewhere: it must load, have the model's shape and survive writing."""
    import tempfile

    import numpy as np
    import torch

    from zoo_duo_attention.patterns import binarise, read_pattern, write_pattern

    pattern = read_pattern(case.path)
    config = case.json("config.json")
    yield Check("sizes", [pattern.sink, pattern.recent], [config["sink_size"], config["recent_size"]])
    with tempfile.TemporaryDirectory() as folder:
        again = read_pattern(write_pattern(folder, pattern.raw, pattern.config))
    yield Check("round trip", torch.from_numpy(again.raw), torch.from_numpy(pattern.raw))
    yield Check(
        "full heads at sparsity 0.75", int(binarise(pattern.alphas, sparsity=0.75).sum()), int(np.ceil(pattern.alphas.size * 0.25 - 1e-9)), Tolerance(abs=1)
    )


class _Bytes:
    """The case's tokenizer: ids are UTF-8 bytes; special tokens are one BOS in front."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [*([256] if add_special_tokens else []), *text.encode()]

    def decode(self, ids: list[int]) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")


def multi_passkey_dataset(case: ParityCase) -> Iterator[Check]:
    """The synthetic data, drawn from torch's global generator as published."""
    import torch

    from zoo_duo_attention.training.data import MultiPasskeyData

    config = case.json("config.json")
    io = case.tensors("io.safetensors")
    a = config["args"]
    with torch.random.fork_rng():
        torch.manual_seed(config["torch_seed"])
        data = MultiPasskeyData(
            config["haystack_samples"],
            _Bytes(),
            passkey_length=a["passkey_length"],
            num_passkeys=a["num_passkeys"],
            context_length_min=a["context_length_min"],
            context_length_max=a["context_length_max"],
            intervals=a["context_lengths_num_intervals"],
            depth_intervals=a["depth_ratio_num_intervals"],
            min_depth=a["min_depth_ratio"],
            max_depth=a["max_depth_ratio"],
            buffer_size=a["buffer_size"],
        )
        yield Check("haystack_tokens_used", torch.tensor(data.haystack), io["haystack_tokens_used"])
        yield Check("context_lengths", data.context_lengths, io["context_lengths"])
        yield Check("depth_ratios", data.depths, io["depth_ratios"], Tolerance(abs=1e-7))
        for j in config["items_in_order"]:
            item = data.item(j)
            yield Check(f"item{j}.input_ids", item.input_ids, io[f"item{j}.input_ids"])
            yield Check(f"item{j}.labels", item.labels, io[f"item{j}.labels"])
