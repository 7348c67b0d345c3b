"""Weight-only quantisation of any backbone by torchao (the papers' own formats are added by their plugins as ``quant.<name>``)."""

from __future__ import annotations

from typing import Any

from zoo_core.errors import InputError, MissingDependencyError


def _quantize(model: Any, config_name: str, **options: Any) -> Any:
    try:
        from torchao import quantization
    except ImportError as error:
        raise MissingDependencyError("weight-only quantisation needs torchao", fix="pip install 'zoo-llm[quant]'") from error
    quantization.quantize_(model, getattr(quantization, config_name)(**options))
    return model


def weight_only_int8(model: Any) -> Any:
    """Linear weights as int8 with one scale per output row; activations stay as they are."""
    return _quantize(model, "Int8WeightOnlyConfig")


def weight_only_int4(model: Any, group_size: int = 32) -> Any:
    """Linear weights as int4 in groups of ``group_size`` input channels.

    On a CPU torchao's plain (unpacked) layout is used: it saves memory only on a GPU with packed kernels.
    """
    import torch

    widths = {m.in_features for m in model.modules() if isinstance(m, torch.nn.Linear)}
    bad = sorted(w for w in widths if w % group_size)
    if bad:
        raise InputError(f"int4: layer widths {bad} are not multiples of group_size={group_size}", fix="quant={'name': 'int4', 'group_size': 16}")
    return _quantize(model, "IntxWeightOnlyConfig", weight_dtype=torch.int4, granularity=_per_group(group_size))


def _per_group(size: int) -> Any:
    from torchao.quantization import PerGroup

    return PerGroup(size)
