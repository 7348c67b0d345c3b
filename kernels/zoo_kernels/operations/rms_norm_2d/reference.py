"""The definition."""

from __future__ import annotations

from torch import Tensor

from zoo_kernels.operations.rms_norm.reference import rms_norm


def rms_norm_2d(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, residual: Tensor | None = None, overwrite: bool = False) -> Tensor:
    """[B, C, H, W] -> [B, C, H, W]; see the package docstring."""
    out = rms_norm(x.permute(0, 2, 3, 1), weight, bias, eps).permute(0, 3, 1, 2)
    return out if residual is None else out + residual
