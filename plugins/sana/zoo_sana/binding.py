"""Choosing the numeric kernels once, when the model is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo_sana.layers import LinearAttention
from zoo_sana.transformer import SanaTransformer


def bind(module: SanaTransformer, choices: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Store the chosen linear-attention implementation on every block (a plain callable: no look-up and no graph break later)."""
    import zoo_kernels

    parameter = next(module.parameters())
    config = module.config
    selected = zoo_kernels.select(
        "linear_attention",
        device=parameter.device,
        dtype=parameter.dtype,
        needs_grad=any(p.requires_grad for p in module.parameters()),
        choice=(choices or {}).get("linear_attention"),
        heads=config.heads,
        head_dim=config.head_dim,
    )
    for layer in module.modules():
        if isinstance(layer, LinearAttention):
            layer.attend = selected
    return {"linear_attention": zoo_kernels.describe(selected)}
