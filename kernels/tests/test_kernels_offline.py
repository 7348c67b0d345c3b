"""Triton kernels compile for GPUs that are not in this machine (sm_90: H100, H200); nothing runs."""

from __future__ import annotations

import os

import pytest
import torch
from zoo_kernels.registry import registry

pytest.importorskip("triton")
from zoo_kernels.offline import compile_calls

SHARED = 227 * 1024
"""Bytes of shared memory that a program may have on sm_90."""


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter is on")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", [op for op in registry if any(item.name == "triton" for item in registry.implementations(op))])
def test_compiles_for_hopper(op: str, dtype: torch.dtype, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    spec, item = registry.op(op), registry.implementation(op, "triton")
    args, kwargs = spec.example(torch.device("cpu"), dtype, 0, "small")
    backward = item.backward and bool(spec.differentiable)
    leaves = [a.requires_grad_() if backward and i in spec.differentiable else a for i, a in enumerate(args)]

    def call() -> None:
        out = item.load()(*leaves, **kwargs)
        if backward:
            torch.autograd.grad(out, [leaves[i] for i in spec.differentiable], torch.ones_like(out))

    kernels = compile_calls(call, capability=90)
    assert len(kernels) > backward, "no kernel was launched, or none for the gradients"
    for kernel in kernels:
        assert kernel.code > 0 and kernel.shared <= SHARED, kernel
