"""Triton, forward and backward: products over the table itself, without gathered rows in memory.

A program makes a block of outputs: tap by tap it loads the rows of its inputs through the table, multiplies them with the tap's weights, and adds in float32;
taps that none of its outputs has are passed over.  The gradient of the features is the same kernel with the transposed table and weights.  The gradient of
the weights adds up products of gathered inputs and gradients over shares of the points, which are summed at the end (no atomics: same bits every time).
"""
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo_kernels.operations.sparse_conv2d.maps import transpose_map
from zoo_kernels.operations.sparse_conv2d.reference import check
from zoo_kernels.triton_support import precision, programs


@triton.jit
def _forward(
    x, w, table, out, N, K, C, D, xn, xc, wk, wc, wd, tn, tk, on, od,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    total = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    for tap in range(0, K):
        place = tl.load(table + n * tn + tap * tk, mask=n < N, other=-1).to(tl.int64)
        if tl.max(place, 0) >= 0:
            for begin in range(0, C, BLOCK_C):
                c = begin + tl.arange(0, BLOCK_C)
                left = tl.load(x + place[:, None] * xn + c[None, :] * xc, mask=(place >= 0)[:, None] & (c < C)[None, :], other=0.0)
                right = tl.load(w + tap * wk + c[:, None] * wc + d[None, :] * wd, mask=(c < C)[:, None] & (d < D)[None, :], other=0.0)
                total += tl.dot(left, right.to(left.dtype), input_precision=PRECISION)
    tl.store(out + n[:, None] * on + d[None, :] * od, total.to(out.dtype.element_ty), mask=(n < N)[:, None] & (d < D)[None, :])


@triton.jit
def _weights(
    x, g, table, dw, N, K, C, D, SHARE, xn, xc, gn, gd, tn, tk,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tap, share = tl.program_id(0) % K, (tl.program_id(0) // K).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    d = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)
    total = tl.zeros((BLOCK_C, BLOCK_D), tl.float32)
    for begin in range(share * SHARE, tl.minimum(share * SHARE + SHARE, N), BLOCK_N):
        n = begin + tl.arange(0, BLOCK_N).to(tl.int64)
        place = tl.load(table + n * tn + tap * tk, mask=n < N, other=-1).to(tl.int64)
        if tl.max(place, 0) >= 0:
            here = place >= 0
            left = tl.load(x + place[None, :] * xn + c[:, None] * xc, mask=here[None, :] & (c < C)[:, None], other=0.0)
            right = tl.load(g + n[:, None] * gn + d[None, :] * gd, mask=here[:, None] & (d < D)[None, :], other=0.0)
            total += tl.dot(left, right.to(left.dtype), input_precision=PRECISION)
    place = dw + ((share * K + tap) * C + c[:, None]) * D + d[None, :]
    tl.store(place, total, mask=(c < C)[:, None] & (d < D)[None, :])


def _side(channels: int, most: int = 64) -> int:
    return max(16, min(most, triton.next_power_of_2(channels)))


def _convolve(features: Tensor, weight: Tensor, table: Tensor) -> Tensor:
    (taps, channels, outputs), count = weight.shape, table.shape[0]
    out = torch.empty((count, outputs), dtype=features.dtype, device=features.device)
    if not features.shape[0] or not channels:
        return out.zero_()
    if out.numel():
        options: dict[str, Any] = {"BLOCK_N": 64, "BLOCK_C": _side(channels, 32), "BLOCK_D": _side(outputs), "PRECISION": precision(features.dtype)}
        grid = (triton.cdiv(count, 64), triton.cdiv(outputs, options["BLOCK_D"]))
        strides = (*features.stride(), *weight.stride(), *table.stride(), *out.stride())
        _forward[grid](features, weight, table, out, count, taps, channels, outputs, *strides, **options)
    return out


def _weight_gradient(features: Tensor, grad: Tensor, table: Tensor, weight: Tensor) -> Tensor:
    (taps, channels, outputs), count = weight.shape, table.shape[0]
    if not features.shape[0] or not count or not weight.numel():
        return torch.zeros_like(weight)
    options: dict[str, Any] = {"BLOCK_N": 32, "BLOCK_C": _side(channels), "BLOCK_D": _side(outputs), "PRECISION": precision(features.dtype)}
    blocks = triton.cdiv(channels, options["BLOCK_C"]), triton.cdiv(outputs, options["BLOCK_D"])
    shares = max(1, min(triton.cdiv(programs(features.device), taps * blocks[0] * blocks[1]), triton.cdiv(count, 128)))
    share = triton.cdiv(triton.cdiv(count, shares), 32) * 32
    shares = triton.cdiv(count, share)
    parts = torch.empty((shares, taps, channels, outputs), dtype=torch.float32, device=features.device)
    strides = (*features.stride(), *grad.stride(), *table.stride())
    _weights[(shares * taps, *blocks)](features, grad, table, parts, count, taps, channels, outputs, share, *strides, **options)
    return parts.sum(0).to(weight.dtype)


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
            to_features = _convolve(grad, weight.transpose(1, 2), back)
        if ctx.needs_input_grad[1]:
            to_weight = _weight_gradient(features, grad, table, weight)
        return to_features, to_weight, None, None


def sparse_conv2d(features: Tensor, weight: Tensor, table: Tensor, transposed: Tensor | None = None) -> Tensor:
    """See :func:`zoo_kernels.operations.sparse_conv2d.reference.sparse_conv2d`."""
    check(features, weight, table)
    return _SparseConv.apply(features, weight, table, transposed)  # type: ignore[no-any-return]
