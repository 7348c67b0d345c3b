"""One implementation against the definition: the same cases for this package, for third parties, for ``zoo kernels verify`` and for the probe.

A case is data (operation, implementation, device, dtype, kind of check, size, memory layout, variant); :func:`run` judges it.
The yardstick is the operation's reference, run on the same numbers in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from zoo_kernels.registry import registry
from zoo_kernels.selection import reasons_against
from zoo_kernels.spec import KernelImpl, OpSpec, Query
from zoo_kernels.triton_support import interpreting

LAYOUTS = ("contiguous", "reversed", "gaps", "shifted", "expanded")
"""Memory of the tensor arguments: plain; dimensions stored in reverse; every second place of the last dimension; inside a larger tensor at odd offsets (the
places between and around hold NaN, so that reading them shows); first dimension of stride 0."""
GRADIENT_FACTOR = 4.0
"""A gradient may be this many times further from the reference than the result."""


class ParityError(AssertionError):
    """An implementation differs from its reference; ``error`` is the measured number (infinite for wrong shape, dtype or non-finite values)."""

    def __init__(self, what: str, error: float) -> None:
        super().__init__(what)
        self.error = error


@dataclass(frozen=True)
class Case:
    """One check.  ``kind``: forward, backward, repeat (same bits twice), compile (one graph under ``torch.compile``, same result)."""

    op: str
    implementation: str
    device: str
    dtype: str
    kind: str
    size: str = "tiny"
    layout: str = "contiguous"
    variant: str = ""

    def __str__(self) -> str:
        return "-".join(part for part in (self.op, self.implementation, self.device, self.dtype, self.kind, self.size, self.layout, self.variant) if part)

    def reasons(self) -> list[str]:
        """Why the implementation cannot serve this case (empty: it can); the quarantine does not count."""
        item = registry.implementation(self.op, self.implementation)
        query = Query(torch.device(self.device), getattr(torch, self.dtype), self.kind == "backward", compiled=self.kind == "compile")
        return reasons_against(item, query, trusted=True)

    def check(self) -> None:
        """Run it.

        Raises:
            ParityError: The implementation differs from the reference.
        """
        verdict = run(self)
        if not verdict.passed:
            raise ParityError(f"{self}: error {verdict.error:.3g}, allowed {verdict.tolerance:.3g}. {verdict.note}".rstrip(" ."), verdict.error)


@dataclass(frozen=True)
class Verdict:
    """What :func:`run` found.  ``skipped`` holds the reason when the implementation does not claim to serve the case."""

    case: Case
    passed: bool
    error: float = 0.0
    tolerance: float = 0.0
    note: str = ""
    skipped: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def cases(
    op: str, implementation: str, device: str = "cpu", *, dtypes: Sequence[str] | None = None, compiled: bool = True, size: str = "tiny"
) -> Iterator[Case]:
    """Every case of one implementation: dtypes x layouts, no tokens, each variant, gradients, same bits, one graph."""
    spec, item = registry.op(op), registry.implementation(op, implementation)
    chosen = tuple(dtypes or spec.tolerance)
    for dtype in chosen:
        base = {"op": op, "implementation": implementation, "device": device, "dtype": dtype}
        for layout in LAYOUTS:
            yield Case(**base, kind="forward", size=size, layout=layout)
        yield Case(**base, kind="forward", size="empty")
        if dtype == chosen[0] and not (device == "cpu" and interpreting()):  # the interpreter needs minutes for it
            yield Case(**base, kind="forward", size="small")
        for variant in spec.variants:
            yield Case(**base, kind="forward", size=size, variant=variant)
        if item.backward and spec.differentiable:
            for layout in LAYOUTS:
                yield Case(**base, kind="backward", size=size, layout=layout)
            yield Case(**base, kind="backward", size="empty")
            for variant in spec.variants:
                yield Case(**base, kind="backward", size=size, variant=variant)
        if item.deterministic:
            yield Case(**base, kind="repeat", size=size)
    if item.compile_safe and compiled:
        yield Case(op, implementation, device, chosen[0], "compile", size)


def run(case: Case) -> Verdict:
    """Judge one case; what the implementation raises is a failure with the message as note."""
    spec, item = registry.op(case.op), registry.implementation(case.op, case.implementation)
    reasons = case.reasons()
    if reasons:
        return Verdict(case, True, skipped="; ".join(reasons))
    try:
        function = item.load()
        return {"forward": _forward, "backward": _backward, "repeat": _repeat, "compile": _compile}[case.kind](case, spec, item, function)
    except Exception as error:
        return Verdict(case, False, float("inf"), note=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


# -- the four kinds --------------------------------------------------------------------------------------------------------------------


def _forward(case: Case, spec: OpSpec, item: KernelImpl, function: Callable[..., Any]) -> Verdict:
    args, kwargs = inputs(case, spec)
    before = [a.clone() if isinstance(a, Tensor) else a for a in args]
    with torch.no_grad():
        out = function(*args, **kwargs)
        expected = spec.reference(*widen(before), **dict(zip(kwargs, widen(list(kwargs.values())))))
        plain = spec.reference(*before, **kwargs)
    if any(isinstance(a, Tensor) and not torch.equal(a, b) for a, b in zip(args, before)):
        return Verdict(case, False, float("inf"), note="changed its inputs")
    return _compare(case, spec, out, expected, plain, before, kwargs)


def _backward(case: Case, spec: OpSpec, item: KernelImpl, function: Callable[..., Any]) -> Verdict:
    args, kwargs = inputs(case, spec)
    places = [i for i in spec.differentiable if i < len(args) and isinstance(args[i], Tensor)]
    leaves = [a.detach().requires_grad_() if i in places else a for i, a in enumerate(args)]
    wide = [a.detach().clone().requires_grad_() if i in places else a for i, a in enumerate(widen(args))]
    out = function(*leaves, **kwargs)
    expected = spec.reference(*wide, **dict(zip(kwargs, widen(list(kwargs.values())))))
    seed = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(expected.device)
    if case.layout == "expanded":
        seed = torch.ones((), device=expected.device).expand(expected.shape)
    seed = seed.to(out.dtype)
    found = torch.autograd.grad(out, [leaves[i] for i in places], arrange(seed, case.layout))
    wanted = torch.autograd.grad(expected, [wide[i] for i in places], seed.float())
    tolerance = spec.tolerance[case.dtype] * GRADIENT_FACTOR
    worst, note = 0.0, ""
    for place, left, right in zip(places, found, wanted):
        if left.shape != right.shape or left.dtype != args[place].dtype:
            return Verdict(case, False, float("inf"), tolerance, f"gradient of argument {place} is {tuple(left.shape)} {left.dtype}")
        error = distance(left, right)
        if not error <= worst:
            worst, note = error, f"largest at argument {place}"
    return Verdict(case, worst <= tolerance, worst, tolerance, "" if worst <= tolerance else note)


def _repeat(case: Case, spec: OpSpec, item: KernelImpl, function: Callable[..., Any]) -> Verdict:
    args, kwargs = inputs(case, spec)
    with torch.no_grad():
        first, second = _tensors(function(*args, **kwargs)), _tensors(function(*args, **kwargs))
    same = len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second))
    return Verdict(case, same, 0.0 if same else float("inf"), note="" if same else "two calls gave different bits")


def _compile(case: Case, spec: OpSpec, item: KernelImpl, function: Callable[..., Any]) -> Verdict:
    args, kwargs = inputs(case, spec)
    torch._dynamo.reset()
    with torch.no_grad():
        out = torch.compile(function, backend="aot_eager", fullgraph=True)(*args, **kwargs)
        expected = spec.reference(*widen(args), **dict(zip(kwargs, widen(list(kwargs.values())))))
        plain = spec.reference(*args, **kwargs)
    return _compare(case, spec, out, expected, plain, args, kwargs)


# -- inputs and distances --------------------------------------------------------------------------------------------------------------


def inputs(case: Case, spec: OpSpec) -> tuple[list[Any], dict[str, Any]]:
    """Arguments of a case: the operation's example, its variant, every floating tensor in the case's memory layout."""
    args, kwargs = spec.example(torch.device(case.device), getattr(torch, case.dtype), 0, case.size)
    if case.variant:
        args, kwargs = spec.variants[case.variant](list(args), dict(kwargs))
    return [arrange(a, case.layout) for a in args], {name: arrange(a, case.layout) for name, a in kwargs.items()}


def arrange(value: Any, layout: str) -> Any:
    """The same numbers in other memory (``expanded`` repeats the first entry); values that are no floating tensors pass."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.dim() == 0 or value.numel() == 0:
        return value
    if layout == "gaps":
        return torch.stack((value, torch.full_like(value, float("nan"))), -1).flatten(-2)[..., ::2]
    if layout == "reversed":
        order = list(range(value.dim()))[::-1]
        return value.permute(order).contiguous().permute(order)
    if layout == "shifted":
        inside = value.new_full([n + 3 for n in value.shape], float("nan"))[tuple(slice(1, n + 1) for n in value.shape)]
        return inside.copy_(value)
    if layout == "expanded" and value.dim() > 1:
        return value[:1].expand_as(value)
    return value


def widen(values: Sequence[Any]) -> list[Any]:
    """Floating tensors in float32 (contiguous); everything else as it is."""
    return [v.float().contiguous() if isinstance(v, Tensor) and v.is_floating_point() else v for v in values]


def distance(out: Tensor, expected: Tensor) -> float:
    """``|out - expected| / |expected|`` by Euclidean norms in float64; 0 for no elements, infinite for non-finite differences."""
    if not expected.numel():
        return 0.0
    wanted = expected.double()
    error = float((out.double() - wanted).norm() / wanted.norm().clamp_min(1e-30))
    return error if error == error else float("inf")


def _tensors(out: Any) -> tuple[Any, ...]:
    """Results of an operation that has several are judged by its own ``compare``."""
    return tuple(out) if isinstance(out, (tuple, list)) else (out,)


def _outline(out: Any, sizes: bool) -> str:
    """Shapes (or only the number of dimensions, for results whose sizes depend on the numbers) and dtypes in words."""
    parts = _tensors(out)
    return ", ".join(f"{tuple(t.shape) if sizes else f'{t.dim()}-d'} {t.dtype}" if isinstance(t, Tensor) else type(t).__name__ for t in parts)


def _compare(case: Case, spec: OpSpec, out: Any, expected: Any, plain: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Verdict:
    tolerance, sizes = spec.tolerance[case.dtype], isinstance(plain, Tensor)
    if _outline(out, sizes) != _outline(plain, sizes):
        return Verdict(case, False, float("inf"), tolerance, f"returned {_outline(out, sizes)}, the reference {_outline(plain, sizes)}")
    error = spec.compare(out, expected, args, kwargs) if spec.compare else distance(out, expected)
    return Verdict(case, bool(error <= tolerance), error, tolerance)
