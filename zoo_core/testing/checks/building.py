"""Building models: on the meta device and with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from zoo_core.testing.checks import check
from zoo_core.testing.results import Skipped
from zoo_core.testing.subject import Subject

FIRST = ("metadata.", "imports.plugin", "hooks.", "packaging.entry-point", "discovery.accepted")
LIMIT_BYTES = 512 * 2**20
"""A build on the meta device may hold this much real memory (tables, buffers) before it is stopped."""


def tiny(subject: Subject) -> list[str]:
    """Models with a declared tiny form."""
    names = subject.tiny_models()
    if not names:
        raise Skipped("the hook zoo_conformance declares no tiny model")
    return names


def counted(subject: Subject) -> list[str]:
    names = [name for name, entry in subject.models.items() if entry.get("parameters")]
    if not names:
        raise Skipped("no entry gives a parameter count")
    return names


def shapes(handle: Any) -> dict[str, tuple[Any, ...]]:
    """``component.key`` -> (shape, dtype) of parameters and saved buffers."""
    return {
        f"{part}.{key}": (tuple(value.shape), value.dtype)
        for part, module in handle.modules()
        for key, value in module.state_dict().items()
        if hasattr(value, "shape")
    }


def parameters(handle: Any) -> int:
    """Number of parameters, tied ones counted once per component."""
    return sum(value.numel() for _, module in handle.modules() for value in module.parameters())


@contextmanager
def no_big_allocations(limit: int = LIMIT_BYTES) -> Iterator[None]:
    """Stop a build that claims to be on the meta device as soon as it has made ``limit`` bytes of real tensors."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    made = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal made
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.device.type == "cpu" and function.overloadpacket.__name__ in FACTORIES:
                made += result.nbytes
                if made > limit:
                    raise AssertionError(f"building on the meta device makes real tensors (more than {limit / 2**20:.0f} MiB)")
            return result

    with Watch():
        yield


FACTORIES = ("empty", "empty_strided", "zeros", "ones", "full", "rand", "randn", "_to_copy", "clone", "empty_like", "zeros_like", "ones_like")


@check("build.tiny", items=tiny, needs=FIRST)
def build(subject: Subject, item: str) -> str:
    """The tiny form builds on the CPU with seeded random weights and is a ``Model`` of its task's protocol."""
    import torch

    from zoo_core import interfaces
    from zoo_core.specs import TASKS

    assert item in subject.models, f"zoo_conformance: {item!r} is no model of this plugin"
    handle = subject.load(item)
    subject._handles[item] = handle
    assert isinstance(handle, interfaces.Model), f"{item}: the builder returns a {type(handle).__name__}, expected a zoo_core.interfaces.Model"
    assert handle.name == item and handle.task == subject.task(item), f"{item}: the handle calls itself {handle.name!r}, task {handle.task!r}"
    protocol = TASKS.get(handle.task)
    if protocol:
        wanted = getattr(interfaces, protocol)
        lacking = [name for name in protocol_members(wanted) if not hasattr(handle, name)]
        assert not lacking, f"{item}: {type(handle).__name__} lacks {', '.join(lacking)} of the protocol {protocol}"
    declared, reported = set(handle.spec.card.get("kernels") or {}), set(handle.report.kernels if handle.report else {})
    bound = reported & (declared | operations())
    entry = ", ".join(f"{op}: {{}}" for op in sorted(bound))
    assert declared == bound, f"{item}: its entry declares the operations {sorted(declared)}, the build binds others; registry.yaml: kernels: {{{entry}}}"
    for part, module in handle.modules():
        for key, value in [*module.named_parameters(), *module.named_buffers()]:
            assert not value.is_meta, f"{item}: {part}.{key} was left on the meta device"
            assert not value.is_floating_point() or bool(torch.isfinite(value).all()), f"{item}: {part}.{key} has values that are not finite"
        assert not module.training, f"{item}: component {part!r} is in training mode"
    return f"{parameters(handle):,} parameters"


def operations() -> set[str]:
    """Names of the kernels package's operations (none without it); other keys of ``report.kernels`` are the plugin's own call sites."""
    try:
        from zoo_kernels.registry import registry
    except ImportError:
        return set()
    return set(registry)


def protocol_members(protocol: type) -> set[str]:
    """Names that a protocol demands."""
    found = set(getattr(protocol, "__annotations__", {}))
    return found | {name for name, value in vars(protocol).items() if callable(value) and not name.startswith("_")}


@check("build.seed", items=tiny, needs=(*FIRST, "build.tiny"))
def seed(subject: Subject, item: str) -> None:
    """Random weights depend on the seed alone, and building leaves the caller's random state as it was."""
    import torch

    before = torch.random.get_rng_state()
    again, other = subject.load(item), subject.load(item, seed=1)
    assert torch.equal(before, torch.random.get_rng_state()), f"{item}: building with a seed changes the global random state"
    first = subject.handle(item)
    same, different = True, False
    for (_, a), (_, b), (_, c) in zip(first.modules(), again.modules(), other.modules(), strict=True):
        for x, y, z in zip(a.state_dict().values(), b.state_dict().values(), c.state_dict().values(), strict=True):
            if isinstance(x, torch.Tensor):
                same &= torch.equal(x, y)
                different |= not torch.equal(x, z)
    assert same, f"{item}: two builds with the same seed differ"
    assert different, f"{item}: another seed gives the same weights"


@check("build.meta", items=tiny, needs=(*FIRST, "build.tiny"))
def meta(subject: Subject, item: str) -> None:
    """On the meta device it has the same keys, shapes and dtypes as on the CPU, and no values."""
    with no_big_allocations():
        handle = subject.load(item, device="meta")
    real = [f"{part}.{key}" for part, module in handle.modules() for key, value in module.named_parameters() if not value.is_meta]
    assert not real, f"{item}: built for the meta device, but {real[0]} has values"
    on_meta, on_cpu = shapes(handle), shapes(subject.handle(item))
    assert set(on_meta) == set(on_cpu), f"{item}: keys differ between meta and CPU: {sorted(set(on_meta) ^ set(on_cpu))[:5]}"
    differing = [key for key in on_meta if on_meta[key] != on_cpu[key]]
    assert not differing, f"{item}: {differing[0]} is {on_meta[differing[0]]} on meta and {on_cpu[differing[0]]} on the CPU"


@check("build.parameters", items=counted, needs=(*FIRST, "build.meta"))
def parameter_count(subject: Subject, item: str) -> str:
    """Built in full size on the meta device, the model has as many parameters as its entry says."""
    from zoo_core.loading import load

    with no_big_allocations():
        handle = load(item, device="meta", weights="random")
    wanted, found = subject.models[item]["parameters"], parameters(handle)
    per_part = {part: sum(value.numel() for value in module.parameters()) for part, module in handle.modules()}
    assert wanted in (found, *per_part.values()), f"{item}: the entry says {wanted:,} parameters, the model has {found:,} ({per_part})"
    return f"{wanted:,}"


@check("build.options", items=tiny, needs=(*FIRST, "build.tiny"))
def unknown_option(subject: Subject, item: str) -> None:
    """An option that it does not know is refused at load, and so is an unknown configuration key."""
    for options in ({"no_such_option": 1}, {"overrides": {**dict(subject.options(item).get("overrides") or {}), "no_such_key": 1}}):
        try:
            subject.load(item, **options)
        except (ValueError, TypeError):
            continue
        raise AssertionError(f"{item}: zoo.load takes {options} without a word")
