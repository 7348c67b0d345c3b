"""Choosing the numeric kernels once, when the model is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo_dc_ae.attention import LinearAttention2d

if TYPE_CHECKING:
    from torch import nn

    from zoo_core.interfaces.weights import BuildRequest


def bind_kernels(module: nn.Module, request: BuildRequest) -> None:
    """Store the implementation of ``linear_attention`` for this device and dtype on every attention layer, and say which in the report.

    The choice is a plain callable: no look-up and no graph break later.  ``kernels={"linear_attention": "reference"}`` forces one.
    """
    from zoo_kernels import select
    from zoo_kernels.selection import describe

    layers = [layer for layer in module.modules() if isinstance(layer, LinearAttention2d)]
    if not layers or request.device.type == "meta":
        return
    choices = request.options.get("kernels") or {}
    dtype, head_dim, choice = layers[0].qkv.weight.dtype, layers[0].head_dim, choices.get("linear_attention")
    function, with_gradient = (
        select("linear_attention", device=request.device, dtype=dtype, needs_grad=needed, choice=choice, head_dim=head_dim) for needed in (False, True)
    )
    for layer in layers:
        layer.core, layer.core_with_gradient = function, with_gradient
    request.report.kernels["linear_attention"] = describe(function)
