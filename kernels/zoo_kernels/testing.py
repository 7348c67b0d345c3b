"""Parity of implementations with their reference in your own test-suite, for this package and for third parties.

    # test_my_kernels.py
    import my_package            # registers its op or implementation
    from zoo_kernels import testing

    @testing.parametrize(["my_op"], device="cpu")
    def test_parity(case):
        case.check()

Cases that cannot run here are skipped with the implementation's reasons.  What is checked: :func:`zoo_kernels.parity.cases`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from zoo_kernels import parity
from zoo_kernels.parity import Case as Case
from zoo_kernels.parity import ParityError as ParityError
from zoo_kernels.registry import registry


def cases(
    ops: Iterable[str] | None = None,
    *,
    device: str = "cpu",
    dtypes: Sequence[str] | None = None,
    implementations: Sequence[str] | None = None,
    compiled: bool = True,
) -> Iterator[Case]:
    """All cases of the named operations (default: all that are registered) and implementations (default: all)."""
    for op in ops if ops is not None else registry:
        for item in registry.implementations(op):
            if implementations is None or item.name in implementations:
                known = [d for d in dtypes if d in registry.op(op).tolerance] if dtypes is not None else None
                if known is None or known:
                    yield from parity.cases(op, item.name, device, dtypes=known, compiled=compiled)


def parametrize(ops: Iterable[str] | None = None, **options: Any) -> Callable[[Any], Any]:
    """A pytest decorator that gives the test an argument ``case``; cases that cannot run here are skipped with the reason.  Options: see :func:`cases`."""
    import pytest

    def parameter(case: Case) -> Any:
        reasons = case.reasons()
        return pytest.param(case, id=str(case), marks=[pytest.mark.skip(reason="; ".join(reasons))] if reasons else [])

    return pytest.mark.parametrize("case", [parameter(case) for case in cases(ops, **options)])


def slope_error(op: str, *, seed: int = 0, step: float = 1e-2) -> float:
    """How far the reference's gradient is from a finite difference along a random direction, as a share of it (checks the definition itself)."""
    import torch

    spec = registry.op(op)
    args, kwargs = spec.example(torch.device("cpu"), torch.float32, seed, "tiny")
    generator = torch.Generator().manual_seed(seed + 1)
    leaves = [a.detach().requires_grad_() if i in spec.differentiable else a for i, a in enumerate(args)]
    out = spec.reference(*leaves, **kwargs)
    weight = torch.randn(out.shape, generator=generator)
    gradients = torch.autograd.grad(out, [leaves[i] for i in spec.differentiable], weight)
    directions = {i: torch.randn(args[i].shape, generator=generator) for i in spec.differentiable}
    exact = sum(float((g.double() * directions[i]).sum()) for i, g in zip(spec.differentiable, gradients))

    def value(scale: float) -> float:
        moved = [a + scale * directions[i] if i in directions else a for i, a in enumerate(args)]
        return float((spec.reference(*moved, **kwargs).double() * weight).sum())

    numeric = (value(step) - value(-step)) / (2 * step)
    return abs(numeric - exact) / max(abs(numeric), abs(exact), 1e-12)
