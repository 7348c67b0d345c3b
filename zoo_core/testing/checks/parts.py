"""Contracts of the other kinds: caches, samplers, tokenizers, evaluators, recipes, claims, layouts."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any

from zoo_core.specs import resolve
from zoo_core.testing.checks import check
from zoo_core.testing.results import Skipped
from zoo_core.testing.subject import Subject

NEEDS = ("imports.plugin", "hooks.")


def of_kind(kind: str) -> Callable[[Subject], list[str]]:
    """Names of the plugin's specs of one kind."""

    def items(subject: Subject) -> list[str]:
        names = [spec.name for spec in subject.specs(kind)]
        if not names:
            raise Skipped(f"the plugin has no {kind}")
        return names

    return items


def spec_of(subject: Subject, kind: str, name: str) -> Any:
    return next(spec for spec in subject.specs(kind) if spec.name == name)


# -- caches ------------------------------------------------------------------------------------------------------------------


def fresh_cache(subject: Subject, name: str) -> Any:
    """A new cache, built for a tiny language model of the plugin."""
    models = [model for model in subject.small_models() if subject.task(model) == "causal-lm"]
    if not models:
        raise Skipped("the plugin has no small language model to build a cache for")
    spec = spec_of(subject, "caches", name)
    handle = subject.handle(models[0])
    options = {"storage": spec.storage} if spec.storage != "native" else {}
    made = resolve(spec.build)(handle, **options, **dict(subject.conformance.tiny.get(f"cache:{name}", {})))
    return made.make() if hasattr(made, "make") else made


def _tokens(layer: Any, count: int, seed: int = 0) -> tuple[Any, Any]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    heads = len(layer.policies)
    return torch.randn(1, heads, count, 16, generator=generator), torch.randn(1, heads, count, 16, generator=generator)


@check("cache.append", items=of_kind("caches"), needs=NEEDS)
def append(subject: Subject, item: str) -> None:
    """One and many tokens are taken, shown to attention, counted and forgotten by ``reset``."""
    cache = fresh_cache(subject, item)
    layer = cache.layers[0]
    for count, total in ((1, 1), (5, 6), (1, 7)):
        shown = layer.append(*_tokens(layer, count, total))
        assert isinstance(shown, tuple) and len(shown) >= 2, f"{item}: append returns {type(shown).__name__}, expected a tuple of tensors"
        assert layer.length == total, f"{item}: after {total} tokens, length is {layer.length}"
    assert cache.get_seq_length() == 7, f"{item}: get_seq_length() is {cache.get_seq_length()}, expected 7"
    cache.reset()
    assert cache.get_seq_length() == 0 and layer.length == 0, f"{item}: after reset, {cache.get_seq_length()} tokens are left"


@check("cache.commit", items=of_kind("caches"), needs=(*NEEDS, "cache.append"))
def commit(subject: Subject, item: str) -> None:
    """``append(commit=False)`` shows tokens to attention and keeps none of them."""
    layer = fresh_cache(subject, item).layers[0]
    layer.append(*_tokens(layer, 4))
    shown = layer.append(*_tokens(layer, 3, 1), commit=False)
    assert shown is not None and layer.length == 4, f"{item}: after an uncommitted append, length is {layer.length}, expected 4"
    layer.append(*_tokens(layer, 1, 2))
    assert layer.length == 5, f"{item}: tokens that were not committed are counted"


@check("cache.crop", items=of_kind("caches"), needs=(*NEEDS, "cache.append"))
def crop(subject: Subject, item: str) -> None:
    """``crop`` forgets the last tokens, or refuses with ``InputError`` when the policy evicted what would be needed."""
    from zoo_core.errors import InputError

    layer = fresh_cache(subject, item).layers[0]
    layer.append(*_tokens(layer, 6))
    try:
        layer.crop(4)
    except InputError:
        assert layer.length == 6, f"{item}: a refused crop changed the cache"
        return
    assert layer.length == 4, f"{item}: after crop(4), length is {layer.length}"


@check("cache.memory", items=of_kind("caches"), needs=(*NEEDS, "cache.append"))
def memory(subject: Subject, item: str) -> None:
    """``memory`` counts bytes: none or little when empty, more with tokens, never more used than allocated."""
    cache = fresh_cache(subject, item)
    empty = cache.memory()
    layer = cache.layers[0]
    layer.append(*_tokens(layer, 8))
    full = cache.memory()
    assert full.used > empty.used, f"{item}: {full.used} bytes used with 8 tokens, {empty.used} when empty"
    assert full.overhead <= full.used <= full.allocated, f"{item}: used {full.used}, allocated {full.allocated}, overhead {full.overhead}"


# -- samplers ----------------------------------------------------------------------------------------------------------------


@check("sampler.plan", items=of_kind("samplers"), needs=NEEDS)
def plan(subject: Subject, item: str) -> None:
    """A plan follows the protocol from noise to finite data, and two plans with the same noise agree."""
    import torch

    from zoo_core.interfaces import SamplingPlan

    sampler = resolve(spec_of(subject, "samplers", item).build)()

    def run() -> Any:
        steps = sampler.plan(4)
        assert isinstance(steps, SamplingPlan), f"{item}: plan() returns a {type(steps).__name__} that is no SamplingPlan"
        assert isinstance(steps.evaluations, int) and steps.evaluations >= 1, f"{item}: evaluations is {steps.evaluations!r}"
        generator = torch.Generator().manual_seed(0)
        x = steps.start(torch.randn(2, 4, 8, 8, generator=generator))
        for i in range(steps.evaluations):
            time = steps.model_time(i)
            assert isinstance(time, torch.Tensor) and time.ndim == 0, f"{item}: model_time({i}) is no 0-d tensor"
            output = 0.1 * steps.model_input(x, i)
            noise = torch.randn(x.shape, generator=generator) if steps.needs_noise(i) else None
            x = steps.advance(x, output, i, noise=noise)
            assert x.shape == (2, 4, 8, 8), f"{item}: the state has the shape {tuple(x.shape)} after evaluation {i}"
        return steps.finish(x)

    one, two = run(), run()
    assert bool(torch.isfinite(one).all()), f"{item}: values that are not finite"
    assert torch.equal(one, two), f"{item}: two plans with the same noise give different data"


@check("sampler.inputs", items=of_kind("samplers"), needs=(*NEEDS, "sampler.plan"))
def sampler_inputs(subject: Subject, item: str) -> None:
    """No steps, and a start outside (0, 1], are refused."""
    sampler = resolve(spec_of(subject, "samplers", item).build)()
    for arguments in ({"steps": 0}, {"steps": 4, "start_at": 1.5}):
        try:
            sampler.plan(**arguments)
        except (ValueError, TypeError):
            continue
        raise AssertionError(f"{item}: plan({arguments}) is accepted")


# -- tokenizers, evaluators --------------------------------------------------------------------------------------------------


@check("tokenizer.round-trip", items=of_kind("tokenizers"), needs=NEEDS)
def tokenizer(subject: Subject, item: str) -> None:
    """Text comes back from its ids, and ids are below ``vocab_size``; pictures become integer codes below ``codebook_size``."""
    import torch

    spec = spec_of(subject, "tokenizers", item)
    if spec.modality not in ("text", "image"):
        raise Skipped(f"the kit has no {spec.modality} of its own")
    try:
        made = resolve(spec.build)()
    except Exception as error:
        raise Skipped(f"needs files or options ({type(error).__name__})") from None
    if spec.modality == "text":
        ids = made.encode("a red circle")
        assert ids and all(isinstance(i, int) and 0 <= i < made.vocab_size for i in ids), f"{item}: ids {ids!r}, vocabulary {made.vocab_size}"
        assert "a red circle" in made.decode(ids), f"{item}: 'a red circle' came back as {made.decode(ids)!r}"
    else:
        for codes in made.encode(torch.zeros(1, 3, 64, 64)):
            assert codes.dtype == torch.int64 and int(codes.max()) < made.codebook_size, f"{item}: codes {codes.dtype} up to {int(codes.max())}"


@check("evaluator.items", items=of_kind("evaluators"), needs=NEEDS)
def evaluator(subject: Subject, item: str) -> None:
    """Items are JSON data with unique ids, the same every time, and ``limit`` is kept; metrics are declared."""
    spec = spec_of(subject, "evaluators", item)
    assert spec.metrics, f"{item}: EvaluatorSpec.metrics is empty (metric -> 'higher' or 'lower')"
    build = resolve(spec.build)
    try:
        first = list(build().items(2))
    except Exception as error:
        if isinstance(error, AssertionError):
            raise
        raise Skipped(f"needs data or options ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})") from None
    assert len(first) <= 2, f"{item}: items(2) gives {len(first)} items"
    names = [entry.get("id") for entry in first]
    assert all(names) and len(set(names)) == len(names), f"{item}: ids {names}"
    text = json.dumps([dict(entry) for entry in first], default=_refuse)
    assert text == json.dumps([dict(entry) for entry in build().items(2)], default=_refuse), f"{item}: items differ between two calls"
    lacking = [name for name in ("generate", "score", "aggregate") if not callable(getattr(build(), name, None))]
    assert not lacking, f"{item}: {', '.join(lacking)} missing"


def _refuse(value: Any) -> Any:
    raise AssertionError(f"an item holds a {type(value).__name__}, which is no JSON data")


# -- declarations ------------------------------------------------------------------------------------------------------------


@check("recipe.config", items=of_kind("recipes"), needs=NEEDS)
def recipe(subject: Subject, item: str) -> None:
    """The configuration is a dataclass whose fields all have types OmegaConf can check."""
    config = resolve(spec_of(subject, "recipes", item).config_class)
    assert dataclasses.is_dataclass(config), f"{item}: the config class is no dataclass"
    from omegaconf import OmegaConf

    OmegaConf.structured(config)


@check("claim.complete", items=of_kind("claims"), needs=NEEDS)
def claim(subject: Subject, item: str) -> None:
    """A claim says what the paper states, where, in which setting, and either measures it or names what it needs."""
    spec = spec_of(subject, "claims", item)
    for name in ("summary", "setting", "source"):
        assert str(getattr(spec, name)).strip(), f"{item}: {name!r} is empty"
    assert spec.paper_value != "" and spec.paper_value is not None, f"{item}: paper_value is empty"
    assert spec.measure or spec.needs, f"{item}: neither measure nor needs is given"


@check("layout.detect", items=of_kind("weights"), needs=NEEDS)
def layout(subject: Subject, item: str) -> None:
    """Every layout can be told from the others: it has patterns, and they are regular expressions."""
    spec = spec_of(subject, "weights", item)
    assert spec.detect or len(subject.specs("weights")) == 1, f"{item}: no 'detect' patterns, but the plugin has several layouts"
    for pattern in spec.detect:
        re.compile(pattern)
