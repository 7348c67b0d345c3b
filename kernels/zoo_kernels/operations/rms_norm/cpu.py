"""CPU: without gradients the rows go through the second-level cache in pieces, so that memory is read and written once; with gradients the definition."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo_kernels.operations.rms_norm import reference

CHUNK = 1 << 17
"""Elements per piece."""


def rms_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """See :func:`zoo_kernels.operations.rms_norm.reference.rms_norm`."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or x.numel() <= CHUNK:
        return reference.rms_norm(x, weight, bias, eps)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    norm_rows(x.reshape(-1, x.shape[-1]), weight, bias, eps, None, out.view(-1, x.shape[-1]))
    return out


def norm_rows(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, residual: Tensor | None, out: Tensor) -> None:
    """Rows [R, C] normed (plus ``residual`` [R, C]) into ``out`` [R, C], which may be ``x`` itself; no gradients."""
    channels = x.shape[1]
    scale, shift = weight.float() if weight is not None else None, bias.float() if bias is not None else None
    step = max(1, CHUNK // max(1, channels))
    for begin in range(0, x.shape[0], step):
        piece = x[begin : begin + step]
        piece = piece.float() if piece.dtype == torch.float64 else piece
        inverse = torch.linalg.vector_norm(piece, dim=1, keepdim=True, dtype=torch.float32).square_().div_(channels).add_(eps).rsqrt_()
        normed = piece.float() * inverse
        if scale is not None and shift is not None:
            normed = torch.addcmul(shift, normed, scale)
        elif scale is not None:
            normed *= scale
        elif shift is not None:
            normed += shift
        if residual is not None:
            normed += residual[begin : begin + step]
        out[begin : begin + step].copy_(normed)
