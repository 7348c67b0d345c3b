"""Compiling Triton kernels for a GPU that is not in this machine: the compiler's complaints without the device.

An operation is called with tensors on the CPU; launches are caught, and the kernel is compiled to the target's machine code with the types of its
arguments.  Nothing runs, so results mean nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

TYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "uint8": "u8", "int64": "i64", "int32": "i32", "bool": "i1"}


@dataclass(frozen=True)
class Compiled:
    """One kernel: name, bytes of shared memory per program, and bytes of machine code."""

    name: str
    shared: int
    code: int


def compile_calls(function: Callable[..., Any], *args: Any, capability: int = 90, **kwargs: Any) -> list[Compiled]:
    """Call ``function`` and compile every kernel it launches for CUDA ``capability`` (90: H100/H200, 80: A100).

    Raises:
        KernelError: Triton is absent or its interpreter is on.
        triton.CompilationError: A kernel does not compile.
    """
    from zoo_kernels.errors import KernelError
    from zoo_kernels.triton_support import installed, interpreting

    if not installed() or interpreting():
        raise KernelError("kernels cannot be compiled here", fix="install triton, and unset TRITON_INTERPRET")
    found: list[Compiled] = []
    with _caught(found, capability):
        function(*args, **kwargs)
    return found


def compile_operation(op: str, implementation: str = "triton", *, dtype: str = "float32", capability: int = 90, size: str = "small") -> list[Compiled]:
    """Compile what an implementation launches for the operation's example, and for its gradients where it has them.

    Raises:
        KernelError: Triton is absent or its interpreter is on; unknown names.
        triton.CompilationError: A kernel does not compile.
    """
    import torch

    from zoo_kernels.registry import registry

    spec, item = registry.op(op), registry.implementation(op, implementation)
    args, kwargs = spec.example(torch.device("cpu"), getattr(torch, dtype), 0, size)
    places = spec.differentiable if item.backward else ()
    leaves = [a.requires_grad_() if i in places else a for i, a in enumerate(args)]
    function = item.load()

    def call() -> None:
        out = function(*leaves, **kwargs)
        if places:
            torch.autograd.grad(out, [leaves[i] for i in places], torch.ones_like(out))

    return compile_calls(call, capability=capability)


@contextlib.contextmanager
def _caught(found: list[Compiled], capability: int) -> Iterator[None]:
    from triton.runtime.jit import JITFunction

    original = JITFunction.run

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        found.append(_compile(self, args, kwargs, capability))

    JITFunction.run = run
    try:
        yield
    finally:
        JITFunction.run = original


def _compile(kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any], capability: int) -> Compiled:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    options = {name: kwargs.pop(name) for name in ("num_warps", "num_stages") if name in kwargs}
    values = dict(zip((p.name for p in kernel.params), args)) | kwargs
    signature, constants = {}, {}
    for parameter in kernel.params:
        value = values[parameter.name]
        if parameter.is_constexpr or value is None:
            signature[parameter.name] = "constexpr"
            constants[parameter.name] = value
        elif hasattr(value, "dtype"):
            signature[parameter.name] = "*" + TYPES[str(value.dtype).removeprefix("torch.")]
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        else:
            signature[parameter.name] = "i32" if abs(value) < 2**31 else "i64"
    compiled = triton.compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", capability, 32), options=options)
    return Compiled(kernel.__name__, compiled.metadata.shared, len(compiled.asm["cubin"]))
