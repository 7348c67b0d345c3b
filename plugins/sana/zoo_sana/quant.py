"""Weight-only quantisation of the transformer (torchao), with an error report."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from zoo_core.errors import InputError, MissingDependencyError


def quantise(module: nn.Module, kind: str, *, group: int = 32) -> str:
    """Quantise the blocks' linear weights in place (embeddings, modulation and output stay).

    Args:
        kind: ``"int8"`` (one scale per output row) or ``"int4"`` (groups of ``group`` input channels).

    Returns:
        One line for the load report: how many layers, largest and mean relative weight error, bytes before and after.
    """
    try:
        from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup, quantize_
    except ImportError as error:
        raise MissingDependencyError("weight-only quantisation needs torchao", fix="pip install 'zoo-sana[quant]'") from error
    if kind not in ("int8", "int4"):
        raise InputError(f"quant={kind!r} is unknown", fix="quant='int8' or quant='int4'")
    config: Any = Int8WeightOnlyConfig() if kind == "int8" else IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(group))
    chosen = {
        name: layer for name, layer in module.named_modules() if (isinstance(layer, nn.Linear) and ".attn." in name) or ".cross." in name or ".ffn." in name
    }
    chosen = {name: layer for name, layer in chosen.items() if isinstance(layer, nn.Linear) and (kind == "int8" or layer.in_features % group == 0)}
    errors, sizes = [], []
    for layer in chosen.values():  # one by one: never a second copy of all weights
        weight = layer.weight.detach()
        quantize_(layer, config)
        small = layer.weight.dequantize() if hasattr(layer.weight, "dequantize") else layer.weight
        errors.append(float((small.float() - weight.float()).norm() / weight.float().norm().clamp_min(1e-12)))
        sizes.append((weight.numel(), weight.element_size()))
    if not errors:
        raise InputError(f"quant={kind!r}: no layer has a width that is a multiple of {group}", fix="quant='int8'")
    size = sum(count * width for count, width in sizes)
    small_size = sum(count for count, _ in sizes) * (1 if kind == "int8" else 0.5 + 2 / group)
    report = f"{kind}: {len(chosen)} layers, relative weight error mean {sum(errors) / len(errors):.2e}, max {max(errors):.2e}"
    return f"{report}; {size:,} -> about {int(small_size):,} bytes"
