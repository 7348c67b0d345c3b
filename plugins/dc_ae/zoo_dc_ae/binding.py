"""Choosing the numeric kernels once, when the model is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo_kernels import describe, select

from zoo_dc_ae.attention import LinearAttention2d
from zoo_dc_ae.layers import RMSNorm2d

if TYPE_CHECKING:
    from torch import nn

    from zoo_core.interfaces.weights import BuildRequest


def bind_kernels(module: nn.Module, request: BuildRequest) -> None:
    """Store the implementations of ``linear_attention`` and ``rms_norm_2d`` for this device and dtype on the layers, and say which in the report.

    The choice is a plain callable: no look-up and no graph break later.  ``kernels={"linear_attention": "reference"}`` forces one.  The norm is bound for
    inference only; with gradients it is the layer's own formula.
    """
    if request.device.type == "meta":
        return
    choices = request.options.get("kernels") or {}
    attention = [layer for layer in module.modules() if isinstance(layer, LinearAttention2d)]
    if attention:
        dtype, head_dim, choice = attention[0].qkv.weight.dtype, attention[0].head_dim, choices.get("linear_attention")
        function, with_gradient = (
            select("linear_attention", device=request.device, dtype=dtype, needs_grad=needed, choice=choice, head_dim=head_dim) for needed in (False, True)
        )
        for layer in attention:
            layer.core, layer.core_with_gradient = function, with_gradient
        request.report.kernels["linear_attention"] = describe(function)
    norms = [layer for layer in module.modules() if isinstance(layer, RMSNorm2d)]
    if norms:
        channels = max(layer.weight.shape[0] for layer in norms)
        norm = select("rms_norm_2d", device=request.device, dtype=norms[0].weight.dtype, choice=choices.get("rms_norm_2d"), channels=channels)
        for layer in norms:
            layer.core, layer.core_device = norm, request.device.type
        request.report.kernels["rms_norm_2d"] = describe(norm)
