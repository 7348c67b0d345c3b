"""Parity of implementations with their reference, for this package and for third parties.

    # test_my_kernels.py
    import my_package            # registers its op or implementation
    from zoo_kernels import testing

    @testing.parametrize(ops=["my_op"], device="cpu")
    def test_parity(case):
        case.check()

A :class:`Case` is one operation, implementation, dtype and layout of memory; :meth:`Case.check` compares forward (and backward, where the operation has
one) with the reference in float32 and raises :class:`ParityError`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo_kernels.registry import registry
from zoo_kernels.selection import reasons_against
from zoo_kernels.spec import KernelImpl, OpSpec, Query

if TYPE_CHECKING:
    import torch

LAYOUTS = ("contiguous", "reversed", "gaps", "shifted", "empty")
"""Memory of the tensor arguments: as made; dimensions in reverse order; every second element along the last dimension; inside a larger tensor at odd offsets; no tokens."""
DTYPES = ("float32", "bfloat16", "float16")


class ParityError(AssertionError):
    """An implementation differs from its reference; ``error`` is the measured number (infinite for wrong shape, dtype or non-finite values)."""

    def __init__(self, what: str, error: float) -> None:
        super().__init__(what)
        self.error = error


@dataclass(frozen=True)
class Case:
    """One comparison; ``str(case)`` is a readable id."""

    op: str
    implementation: str
    dtype: str = "float32"
    layout: str = "contiguous"
    device: str = "cpu"
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.op}-{self.implementation}-{self.dtype}-{self.layout}"

    def reasons(self, needs_grad: bool = False) -> list[str]:
        """Why it cannot run here (empty: it can); quarantine does not count."""
        import torch

        implementation = registry.implementation(self.op, self.implementation)
        query = Query(torch.device(self.device), getattr(torch, self.dtype), needs_grad)
        return [reason for reason in reasons_against(implementation, query) if not reason.startswith("quarantined")]

    def check(self, size: str = "tiny") -> float:
        """Forward, and backward where both sides have one; returns the largest error relative to the tolerance (below 1).

        Raises:
            ParityError: Shape, dtype, finiteness or numbers differ.
        """
        spec, implementation = registry.op(self.op), registry.implementation(self.op, self.implementation)
        error = check_forward(spec, implementation, self, size)
        if spec.differentiable and implementation.backward:
            error = max(error, check_backward(spec, implementation, self, size))
        return error

    def check_compile(self) -> None:
        """``torch.compile(fullgraph=True)`` with the eager backend: no graph break, same numbers as without.

        Raises:
            ParityError: A graph break, or other numbers.
        """
        import torch

        spec, implementation = registry.op(self.op), registry.implementation(self.op, self.implementation)
        args, kwargs = arguments(spec, self)
        function = implementation.load()
        torch._dynamo.reset()
        try:
            with torch.no_grad():
                out = torch.compile(lambda *a: function(*a, **kwargs), fullgraph=True, backend="eager")(*args)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise ParityError(f"{self}: declared compile_safe but breaks the graph: {str(error).strip().splitlines()[0]}", float("inf")) from error
        _compare(spec, self, "compiled", out, spec.reference(*_upcast(args), **_upcast_mapping(kwargs)), args, kwargs)


def cases(
    ops: Iterable[str] | None = None, *, device: str = "cpu", dtypes: Sequence[str] = DTYPES, layouts: Sequence[str] = LAYOUTS, implementations: Sequence[str] | None = None
) -> Iterator[Case]:  # fmt: skip
    """All cases of the named operations (default: all that are registered)."""
    for op in ops if ops is not None else registry:
        for implementation in registry.implementations(op):
            if implementations is None or implementation.name in implementations:
                for dtype in dtypes:
                    if dtype in registry.op(op).tolerance:
                        yield from (Case(op, implementation.name, dtype, layout, device) for layout in layouts)


def parametrize(ops: Iterable[str] | None = None, **options: Any) -> Callable[[Any], Any]:
    """A pytest decorator that gives the test an argument ``case``; cases that cannot run here are skipped with the reason.  Options: see :func:`cases`."""
    import pytest

    def parameter(case: Case) -> Any:
        reasons = case.reasons()
        return pytest.param(case, id=str(case), marks=[pytest.mark.skip(reason="; ".join(reasons))] if reasons else [])

    return pytest.mark.parametrize("case", [parameter(case) for case in cases(ops, **options)])


def arguments(spec: OpSpec, case: Case, size: str = "tiny") -> tuple[list[Any], dict[str, Any]]:
    """The operation's example with the case's dtype, device and layout."""
    import torch

    args, kwargs = spec.example(case.device, getattr(torch, case.dtype), case.seed, "empty" if case.layout == "empty" else size)
    change = {"reversed": _reversed, "gaps": _gaps, "shifted": _shifted}.get(case.layout)
    if change is None:
        return list(args), dict(kwargs)
    return [change(a) if isinstance(a, torch.Tensor) else a for a in args], {k: change(a) if isinstance(a, torch.Tensor) else a for k, a in kwargs.items()}


def _reversed(t: torch.Tensor) -> torch.Tensor:
    """Same values, memory in the reverse order of dimensions."""
    order = tuple(reversed(range(t.dim())))
    return t.permute(order).contiguous().permute(order)


def _gaps(t: torch.Tensor) -> torch.Tensor:
    """Same values at every second place of the last dimension; the gaps hold NaN (floats), so that reading them shows."""
    wide = t.new_full((*t.shape[:-1], 2 * t.shape[-1]), float("nan")) if t.is_floating_point() else t.new_zeros((*t.shape[:-1], 2 * t.shape[-1]))
    wide[..., ::2] = t
    return wide[..., ::2]


def _shifted(t: torch.Tensor) -> torch.Tensor:
    """Same values inside a tensor that is larger by 3 in every dimension (1 before, 2 behind), filled with NaN."""
    shape = [n + 3 for n in t.shape]
    large = t.new_full(shape, float("nan")) if t.is_floating_point() else t.new_zeros(shape)
    inside = large[tuple(slice(1, n + 1) for n in t.shape)]
    inside.copy_(t)
    return inside


def _upcast(args: Sequence[Any]) -> list[Any]:
    import torch

    return [a.detach().float() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args]


def _upcast_mapping(kwargs: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(kwargs, _upcast(list(kwargs.values()))))


def relative_error(out: torch.Tensor, ref: torch.Tensor) -> float:
    """``|out - ref| / |ref|`` in float64; infinite where shapes differ or ``out`` is not finite."""
    import torch

    if out.shape != ref.shape or not bool(torch.isfinite(out).all()):
        return float("inf")
    return float((out.double() - ref.double()).norm() / ref.double().norm().clamp_min(1e-30)) if ref.numel() else 0.0


def _compare(
    spec: OpSpec, case: Case, what: str, out: torch.Tensor, ref: torch.Tensor, args: Sequence[Any], kwargs: dict[str, Any], factor: float = 1
) -> float:
    error = spec.compare(out, ref, args, kwargs) if spec.compare is not None else relative_error(out, ref)
    limit = spec.tolerance[case.dtype] * factor
    if not error <= limit:
        raise ParityError(
            f"{case}: {what} differs from the reference: error {error:.3g}, allowed {limit:.3g}; shapes {tuple(out.shape)}, {tuple(ref.shape)}", error
        )
    return error / limit


def check_forward(spec: OpSpec, implementation: KernelImpl, case: Case, size: str = "tiny") -> float:
    """Error relative to the tolerance; also checks that the inputs are left alone.

    Raises:
        ParityError: Numbers, shape, dtype, or a changed input.
    """
    import torch

    args, kwargs = arguments(spec, case, size)
    before = [a.clone() if isinstance(a, torch.Tensor) else a for a in args]
    ref = spec.reference(*_upcast(args), **_upcast_mapping(kwargs))
    with torch.no_grad():
        out = implementation.load()(*args, **kwargs)
    first = next(a for a in args if isinstance(a, torch.Tensor))
    if spec.compare is None and out.dtype != first.dtype:
        raise ParityError(f"{case}: the result is {out.dtype}, the input {first.dtype}", float("inf"))
    if any(isinstance(a, torch.Tensor) and not torch.equal(a, b) for a, b in zip(args, before)):
        raise ParityError(f"{case}: an input was overwritten", float("inf"))
    return _compare(spec, case, "forward", out, ref, args, kwargs)


def check_backward(spec: OpSpec, implementation: KernelImpl, case: Case, size: str = "tiny") -> float:
    """Largest error of a gradient, relative to four times the tolerance, for a gradient of the result with reversed memory.

    Raises:
        ParityError: A gradient is missing or differs.
    """
    import torch

    args, kwargs = arguments(spec, case, size)
    exact = _upcast(args)
    for i in spec.differentiable:
        args[i], exact[i] = args[i].detach().requires_grad_(), exact[i].requires_grad_()
    out, ref = implementation.load()(*args, **kwargs), spec.reference(*exact, **_upcast_mapping(kwargs))
    grad = _reversed(torch.randn(ref.shape, generator=torch.Generator().manual_seed(case.seed + 1)).to(device=out.device, dtype=out.dtype))
    places = [args[i] for i in spec.differentiable]
    found = torch.autograd.grad(out, places, grad, allow_unused=True)
    wanted = torch.autograd.grad(ref, [exact[i] for i in spec.differentiable], grad.float(), allow_unused=True)
    worst = 0.0
    for i, a, b in zip(spec.differentiable, found, wanted):
        if b is None:
            continue
        if a is None:
            raise ParityError(f"{case}: no gradient for argument {i}", float("inf"))
        error, limit = relative_error(a, b), 4 * spec.tolerance[case.dtype]
        if not error <= limit:
            raise ParityError(f"{case}: gradient of argument {i} differs from the reference: error {error:.3g}, allowed {limit:.3g}", error)
        worst = max(worst, error / limit)
    return worst
