"""CPU: pieces of outputs that stay in the cache.  Few input channels: all taps of a piece in one product, absent ones as a row of zeros; many: tap by tap, only
the pairs that exist.  Gradients gather again instead of keeping the gathered rows of every tap."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo_kernels.operations.sparse_conv2d import reference
from zoo_kernels.operations.sparse_conv2d.maps import transpose_map

PIECE = 4096
"""Outputs per piece, tap by tap."""
NARROW = 16
"""Up to so many input channels the taps are multiplied together."""


def sparse_conv2d(features: Tensor, weight: Tensor, table: Tensor, transposed: Tensor | None = None) -> Tensor:
    """See :func:`zoo_kernels.operations.sparse_conv2d.reference.sparse_conv2d`."""
    if torch.compiler.is_compiling():
        return reference.sparse_conv2d(features, weight, table)
    reference.check(features, weight, table)
    if torch.is_grad_enabled() and (features.requires_grad or weight.requires_grad):
        return _SparseConv.apply(features, weight, table, transposed)  # type: ignore[no-any-return]
    return _convolve(features, weight, table)


class _SparseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, table: Tensor, transposed: Tensor | None) -> Tensor:
        ctx.save_for_backward(features, weight, table, transposed)
        return _convolve(features, weight, table)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, table, transposed = ctx.saved_tensors
        to_features = to_weight = None
        if ctx.needs_input_grad[0]:
            back = transpose_map(table, features.shape[0]) if transposed is None else transposed
            to_features = _convolve(grad.to(features.dtype), weight.transpose(1, 2), back)
        if ctx.needs_input_grad[1]:
            to_weight = _weight_gradient(features, grad, table, weight)
        return to_features, to_weight, None, None


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _convolve(features: Tensor, weight: Tensor, table: Tensor) -> Tensor:
    taps, channels, outputs = weight.shape
    kernel = weight.to(_wide(features.dtype))
    out = features.new_empty(table.shape[0], outputs)
    if channels <= NARROW:
        step = max(64, PIECE // 4)
        padded, flat = _padded(features), kernel.reshape(taps * channels, outputs)
        for begin in range(0, table.shape[0], step):
            out[begin : begin + step] = _together(padded, table[begin : begin + step]) @ flat
        return out
    for begin in range(0, table.shape[0], PIECE):
        piece = table[begin : begin + PIECE].T.contiguous()
        total = kernel.new_zeros(piece.shape[1], outputs)
        for tap in range(taps):
            rows = (piece[tap] >= 0).nonzero()[:, 0]
            if rows.numel():
                total.index_add_(0, rows, features.index_select(0, piece[tap, rows]).to(kernel.dtype) @ kernel[tap])
        out[begin : begin + PIECE] = total
    return out


def _weight_gradient(features: Tensor, grad: Tensor, table: Tensor, weight: Tensor) -> Tensor:
    """dW[k] = sum of features[table[o, k]]^T grad[o]."""
    taps, channels, outputs = weight.shape
    total = torch.zeros(weight.shape, dtype=_wide(features.dtype))
    if channels <= NARROW:
        padded, flat = _padded(features), total.view(taps * channels, outputs)
        for begin in range(0, table.shape[0], PIECE):
            flat.addmm_(_together(padded, table[begin : begin + PIECE]).T, grad[begin : begin + PIECE].to(total.dtype))
        return total.to(weight.dtype)
    for begin in range(0, table.shape[0], PIECE):
        piece, gradient = table[begin : begin + PIECE].T.contiguous(), grad[begin : begin + PIECE].to(total.dtype)
        for tap in range(taps):
            rows = (piece[tap] >= 0).nonzero()[:, 0]
            if rows.numel():
                total[tap].addmm_(features.index_select(0, piece[tap, rows]).to(total.dtype).T, gradient.index_select(0, rows))
    return total.to(weight.dtype)


def _padded(features: Tensor) -> Tensor:
    """[N + 1, C] in the dtype of the sums; the last row, zeros, is what an absent pair reads."""
    wide = _wide(features.dtype)
    return torch.cat((features.to(wide), features.new_zeros(1, features.shape[1], dtype=wide)))


def _together(padded: Tensor, table: Tensor) -> Tensor:
    """[M, K * C]: the inputs of all taps side by side."""
    index = torch.where(table >= 0, table, padded.shape[0] - 1)
    return padded.index_select(0, index.reshape(-1)).view(table.shape[0], table.shape[1] * padded.shape[1])
