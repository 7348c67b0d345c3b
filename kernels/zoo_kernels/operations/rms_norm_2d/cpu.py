"""CPU: without gradients, pixels as rows in pieces of the second-level cache (channels last), over x itself where allowed; with gradients the definition."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo_kernels.operations.rms_norm.cpu import norm_rows
from zoo_kernels.operations.rms_norm_2d import reference


def rms_norm_2d(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, residual: Tensor | None = None, overwrite: bool = False) -> Tensor:
    """See :func:`zoo_kernels.operations.rms_norm_2d.reference.rms_norm_2d`; the result is channels-last."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or x.numel() == 0:
        return reference.rms_norm_2d(x, weight, bias, eps, residual)
    source = x.contiguous(memory_format=torch.channels_last)
    out = source if overwrite or source.data_ptr() != x.data_ptr() else torch.empty_like(source)
    norm_rows(_rows(source), weight, bias, eps, None if residual is None else _rows(residual), _rows(out))
    return out


def _rows(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B * H * W, C], a view of channels-last memory."""
    return x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).reshape(-1, x.shape[1])
