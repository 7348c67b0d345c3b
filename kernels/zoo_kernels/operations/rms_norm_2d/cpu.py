"""CPU, without gradients: pieces of the second-level cache, over x itself where allowed; with gradients the definition.

Channels-last memory goes as rows of pixels.  Channels-first memory goes as it lies (a transposition costs more than the norm); there the definition is as
fast as long as its temporaries stay in the caches, and serves small pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo_kernels.operations.rms_norm.cpu import CHUNK, norm_rows
from zoo_kernels.operations.rms_norm_2d import reference

SMALL = 1 << 22
"""Up to so many elements channels-first memory is left to the definition."""


def rms_norm_2d(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, residual: Tensor | None = None, overwrite: bool = False) -> Tensor:
    """See :func:`zoo_kernels.operations.rms_norm_2d.reference.rms_norm_2d`; the result has the memory format of x."""
    rows = x.is_contiguous(memory_format=torch.channels_last)
    small = x.numel() == 0 or (not rows and x.numel() <= SMALL)
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or small:
        return reference.rms_norm_2d(x, weight, bias, eps, residual)
    if rows:
        out = x if overwrite else torch.empty_like(x)
        norm_rows(_rows(x), weight, bias, eps, None if residual is None else _rows(residual), _rows(out))
        return out
    source = x.contiguous()
    out = source if overwrite or source is not x else torch.empty_like(source)
    _planes(source, weight, bias, eps, residual, out)
    return out


def _rows(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B * H * W, C], a view of channels-last memory."""
    return x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _planes(x: Tensor, weight: Tensor, bias: Tensor, eps: float, residual: Tensor | None, out: Tensor) -> None:
    """Norm of channels-first memory into ``out``, which may be ``x`` itself."""
    channels = x.shape[1]
    flat, target = x.flatten(2), out.view(x.shape[0], channels, -1)
    other = None if residual is None else residual.flatten(2)
    scale, shift = weight.float()[:, None], bias.float()[:, None]
    step = max(1, CHUNK // channels)
    for image in range(x.shape[0]):
        for begin in range(0, flat.shape[2], step):
            piece = flat[image, :, begin : begin + step].float()
            value = piece * piece
            inverse = value.mean(0, keepdim=True).add_(eps).rsqrt_()
            torch.mul(piece, inverse, out=value).mul_(scale).add_(shift)
            if other is not None:
                value += other[image, :, begin : begin + step]
            target[image, :, begin : begin + step] = value
