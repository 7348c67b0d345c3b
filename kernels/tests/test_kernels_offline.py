"""Triton kernels compile for GPUs that are not in this machine (sm_90: H100, H200); nothing runs."""

from __future__ import annotations

import os

import pytest
from zoo_kernels.registry import registry

pytest.importorskip("triton")
from zoo_kernels.offline import compile_operation

SHARED = 227 * 1024
"""Bytes of shared memory that a program may have on sm_90."""


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter is on")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("op", [op for op in registry if any(item.name == "triton" for item in registry.implementations(op))])
def test_compiles_for_hopper(op: str, dtype: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernels = compile_operation(op, dtype=dtype, capability=90)
    backward = bool(registry.op(op).differentiable) and registry.implementation(op, "triton").backward
    assert len(kernels) > backward, "no kernel was launched, or none for the gradients"
    for kernel in kernels:
        assert kernel.code > 0 and kernel.shared <= SHARED, kernel
