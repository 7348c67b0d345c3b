"""Triton, forward and backward, for rows with any strides (:func:`norm` serves ``rms_norm`` and ``rms_norm_2d``).

A program holds a few rows with all their channels in registers: x is read once and the result written once.  In the backward pass a fixed number of
programs walk over the rows; each keeps its own sum for weight and bias, and the sums are added at the end (no atomics)."""
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo_kernels.operations.rms_norm import LIMIT
from zoo_kernels.triton_support import programs

Strides = tuple[int, int, int]


@triton.jit
def _forward(
    x, w, b, res, out, eps, G, R, C, xg, xr, xc, rg, rr, rc, og, orow, oc,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, WEIGHT: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS).to(tl.int64)
    c = tl.arange(0, BLOCK)
    mask = (row < G * R)[:, None] & (c < C)[None, :]
    group, inner = row // R, row % R
    value = tl.load(x + (group * xg + inner * xr)[:, None] + c[None, :] * xc, mask=mask, other=0.0).to(tl.float32)
    value = value * tl.rsqrt(tl.sum(value * value, 1) / C + eps)[:, None]
    if WEIGHT:
        value = value * tl.load(w + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    if BIAS:
        value = value + tl.load(b + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    if RESIDUAL:
        value = value + tl.load(res + (group * rg + inner * rr)[:, None] + c[None, :] * rc, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + (group * og + inner * orow)[:, None] + c[None, :] * oc, value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _backward(
    x, w, g, dx, dw, db, eps, G, R, C, SHARE, xg, xr, xc, gg, gr, gc, dg, dr, dc,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, WEIGHT: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    c = tl.arange(0, BLOCK)
    scale = tl.full((BLOCK,), 1.0, tl.float32)
    if WEIGHT:
        scale = tl.load(w + c, mask=c < C, other=0.0).to(tl.float32)
    grad_weight, grad_bias = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    first = tl.program_id(0).to(tl.int64) * SHARE
    for begin in range(first, tl.minimum(first + SHARE, G * R), ROWS):
        row = begin + tl.arange(0, ROWS).to(tl.int64)
        mask = (row < G * R)[:, None] & (c < C)[None, :]
        group, inner = row // R, row % R
        value = tl.load(x + (group * xg + inner * xr)[:, None] + c[None, :] * xc, mask=mask, other=0.0).to(tl.float32)
        grad = tl.load(g + (group * gg + inner * gr)[:, None] + c[None, :] * gc, mask=mask, other=0.0).to(tl.float32)
        inverse = tl.rsqrt(tl.sum(value * value, 1) / C + eps)[:, None]
        normed = value * inverse
        if WEIGHT:
            grad_weight += tl.sum(grad * normed, 0)
        if BIAS:
            grad_bias += tl.sum(grad, 0)
        grad = grad * scale[None, :]
        result = inverse * (grad - normed * (tl.sum(grad * normed, 1) / C)[:, None])
        tl.store(dx + (group * dg + inner * dr)[:, None] + c[None, :] * dc, result.to(dx.dtype.element_ty), mask=mask)
    if WEIGHT:
        tl.store(dw + tl.program_id(0) * C + c, grad_weight, mask=c < C)
    if BIAS:
        tl.store(db + tl.program_id(0) * C + c, grad_bias, mask=c < C)


def _block(channels: int, strides: Strides) -> dict[str, int]:
    """Rows per program and channels per row: at least 8 neighbouring rows where rows, not channels, lie next to each other in memory."""
    block = triton.next_power_of_2(channels)
    rows = max(1, min(16, 4096 // block))
    if strides[1] == 1 and strides[2] != 1:
        rows = max(rows, min(32, 16384 // block))
    return {"ROWS": rows, "BLOCK": block, "num_warps": 8 if rows * block > 4096 else 4}


class _Norm(torch.autograd.Function):
    """x, residual, out: memory seen as [groups, rows, channels] by strides; see :func:`norm`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, eps: float, shape: Strides, strides: Any, like: Any
    ) -> Tensor:
        groups, rows, channels = shape
        out = like(x)
        block = _block(channels, strides(x))
        other = x if residual is None else residual
        flags = {"WEIGHT": weight is not None, "BIAS": bias is not None}
        grid = (triton.cdiv(groups * rows, block["ROWS"]),)
        _forward[grid](
            x,
            weight,
            bias,
            other,
            out,
            eps,
            groups,
            rows,
            channels,
            *strides(x),
            *strides(other),
            *strides(out),
            RESIDUAL=residual is not None,
            **flags,
            **block,
        )
        ctx.save_for_backward(x, weight, bias)
        ctx.eps, ctx.shape, ctx.strides, ctx.like, ctx.has_residual = eps, shape, strides, like, residual is not None
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        groups, rows, channels = ctx.shape
        g, strides = grads[0], ctx.strides
        if strides(g) is None:
            g = g.contiguous()
        dx, block = ctx.like(x), _block(channels, strides(x))
        count = max(1, min(programs(x.device), triton.cdiv(groups * rows, block["ROWS"])))
        share = triton.cdiv(triton.cdiv(groups * rows, count), block["ROWS"]) * block["ROWS"]
        count = triton.cdiv(groups * rows, share)
        dw, db = (None if t is None else torch.empty((count, channels), dtype=torch.float32, device=x.device) for t in (weight, bias))
        flags = {"WEIGHT": weight is not None, "BIAS": bias is not None}
        _backward[(count,)](x, weight, g, dx, dw, db, ctx.eps, groups, rows, channels, share, *strides(x), *strides(g), *strides(dx), **flags, **block)
        grad_weight = dw.sum(0).to(weight.dtype) if dw is not None else None
        grad_bias = db.sum(0).to(bias.dtype) if db is not None else None
        return dx, grad_weight, grad_bias, grads[0] if ctx.has_residual else None, None, None, None, None


def norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, eps: float, shape: Strides, strides: Any, like: Any
) -> Tensor:  # fmt: skip
    """The norm of ``shape`` = (groups, rows, channels) elements.

    Args:
        strides: ``strides(tensor)`` -> strides of groups, rows and channels, or None when the tensor must be made contiguous first.
        like: ``like(tensor)`` -> an empty tensor for a result.

    Raises:
        ValueError: More channels than the kernel can hold.
    """
    if shape[2] > LIMIT:
        raise ValueError(f"rms_norm=triton: {shape[2]} channels are above {LIMIT}")
    if x.numel() == 0:
        out = x if weight is None and bias is None else x + 0 * sum(t.sum() for t in (weight, bias) if t is not None)
        return out * 1
    weight, bias = (None if t is None else t.contiguous() for t in (weight, bias))
    return _Norm.apply(x, weight, bias, residual, eps, shape, strides, like)  # type: ignore[no-any-return]


def _last(t: Tensor) -> Strides | None:
    """Strides of [..., C] seen as one group of rows (None when the rows do not lie at one stride)."""
    if t.dim() == 1:
        return (0, 0, t.stride(0))
    for i in range(t.dim() - 2):
        if t.shape[i] > 1 and t.stride(i) != t.stride(i + 1) * t.shape[i + 1]:
            return None
    return (0, t.stride(-2), t.stride(-1))


def _empty(t: Tensor) -> Tensor:
    return torch.empty(t.shape, dtype=t.dtype, device=t.device)


def rms_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """See :func:`zoo_kernels.operations.rms_norm.reference.rms_norm`."""
    if _last(x) is None:
        x = x.contiguous()
    channels = x.shape[-1]
    return norm(x, weight, bias, None, eps, (1, x.numel() // max(1, channels), channels), _last, _empty)
