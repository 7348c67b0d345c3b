"""Operations by name: ``ops.linear_attention`` is its :class:`~zoo_kernels.spec.OpSpec` (their code lies in ``operations/<name>/``)."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    from zoo_kernels.errors import KernelError
    from zoo_kernels.registry import registry

    try:
        return registry.op(name)
    except KernelError as error:
        raise AttributeError(str(error)) from None
