"""Triton: the kernel of ``rms_norm`` with rows = pixels, for contiguous and channels-last memory alike (see :mod:`zoo_kernels.operations.rms_norm.triton`)."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo_kernels.operations.rms_norm.triton import Strides, norm


def _pixels(t: Tensor) -> Strides | None:
    """Strides of images, pixels, channels (None when the pixels of an image do not lie at one stride)."""
    if t.shape[2] > 1 and t.shape[3] > 1 and t.stride(2) != t.stride(3) * t.shape[3]:
        return None
    return (t.stride(0), t.stride(3) if t.shape[3] > 1 else t.stride(2), t.stride(1))


def rms_norm_2d(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, residual: Tensor | None = None, overwrite: bool = False) -> Tensor:
    """See :func:`zoo_kernels.operations.rms_norm_2d.reference.rms_norm_2d`; the result has the memory format of x."""
    if _pixels(x) is None:
        x = x.contiguous()
    if residual is not None and _pixels(residual) is None:
        residual = residual.contiguous()
    return norm(x, weight, bias, residual, eps, (x.shape[0], x.shape[2] * x.shape[3], x.shape[1]), _pixels, torch.empty_like)
