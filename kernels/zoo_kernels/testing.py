"""The parity cases for your own test-suite.

import pytest
from zoo_kernels import registry
from zoo_kernels.testing import judge, parity_cases

my_package.kernels.register(registry)          # add_op / add

@pytest.mark.parametrize("case", parity_cases("my_op"), ids=str)
def test_parity(case):
    judge(case)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zoo_kernels import parity
from zoo_kernels.parity import Case
from zoo_kernels.registry import registry


def parity_cases(
    op: str | None = None,
    implementations: Sequence[str] | None = None,
    *,
    devices: Sequence[str] = ("cpu",),
    dtypes: Sequence[str] | None = None,
    compiled: bool = True,
) -> list[Case]:
    """Cases of one operation (default: all registered), of the named implementations (default: all)."""
    found: list[Case] = []
    for name in [op] if op else list(registry):
        for item in registry.implementations(name):
            if implementations is None or item.name in implementations:
                for device in devices:
                    found.extend(parity.cases(name, item.name, device, dtypes=dtypes, compiled=compiled))
    return found


def judge(case: Case) -> None:
    """Run a case in pytest: skips with the implementation's reasons, fails with error and tolerance.

    Raises:
        AssertionError: The implementation differs from the reference.
    """
    import pytest

    verdict = parity.run(case)
    if verdict.skipped:
        pytest.skip(verdict.skipped)
    assert verdict.passed, f"{case}: error {verdict.error:.3g}, tolerance {verdict.tolerance:.3g}. {verdict.note}"


def slope(op: str, *, dtype: Any = None, seed: int = 0, step: float = 1e-2) -> float:
    """How far the reference's gradient is from a finite difference along a random direction, as a share of both (checks the definition itself)."""
    import torch

    spec = registry.op(op)
    args, kwargs = spec.example(torch.device("cpu"), dtype or torch.float32, seed, "tiny")
    generator = torch.Generator().manual_seed(seed + 1)
    leaves = [a.detach().requires_grad_() if i in spec.differentiable else a for i, a in enumerate(args)]
    out = spec.reference(*leaves, **kwargs)
    weight = torch.randn(out.shape, generator=generator)
    gradients = torch.autograd.grad(out, [leaves[i] for i in spec.differentiable], weight)
    directions = {i: torch.randn(args[i].shape, generator=generator) for i in spec.differentiable}
    exact = sum(float((g * directions[i]).double().sum()) for i, g in zip(spec.differentiable, gradients))

    def value(scale: float) -> float:
        moved = [a + scale * directions[i] if i in directions else a for i, a in enumerate(args)]
        return float((spec.reference(*moved, **kwargs).double() * weight).sum())

    numeric = (value(step) - value(-step)) / (2 * step)
    return abs(numeric - exact) / max(abs(numeric), abs(exact), 1e-12)
