"""Triton, forward and backward.

Phase 1: every program adds up ``relu(k)^T v`` and ``relu(k)`` over its share of the tokens; the shares are summed (no atomics: same bits every time).
Phase 2: every block of tokens is multiplied by the state.  Backward is the same two phases: gradient of the state (with dq on the way), then dk and dv.
"""
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo_kernels.triton_support import precision, programs


@triton.jit
def _rows(base, n, d, N, stride_n, stride_d):
    return tl.load(base + n[:, None] * stride_n + d[None, :] * stride_d, mask=n[:, None] < N, other=0.0).to(tl.float32)


@triton.jit
def _state(k, v, s, z, N, H, SHARE, kb, kn, kh, kd, vb, vn, vh, vd, D: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr):
    head, share, shares = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    k += (head // H) * kb + (head % H) * kh
    v += (head // H) * vb + (head % H) * vh
    d = tl.arange(0, D)
    state, norm = tl.zeros((D, D), tl.float32), tl.zeros((D,), tl.float32)
    for begin in range(share * SHARE, tl.minimum(share * SHARE + SHARE, N), BLOCK):
        n = begin + tl.arange(0, BLOCK).to(tl.int64)
        feature = tl.maximum(_rows(k, n, d, N, kn, kd), 0.0)
        state += tl.dot(tl.trans(feature), _rows(v, n, d, N, vn, vd), input_precision=PRECISION)
        norm += tl.sum(feature, 0)
    place = head * shares + share
    tl.store(s + place * D * D + d[:, None] * D + d[None, :], state)
    tl.store(z + place * D + d, norm)


@triton.jit
def _apply(q, s, z, o, eps, N, H, qb, qn, qh, qd, ob, on, oh, od, D: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr):
    head = tl.program_id(0).to(tl.int64)
    n, d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK).to(tl.int64), tl.arange(0, D)
    feature = tl.maximum(_rows(q + (head // H) * qb + (head % H) * qh, n, d, N, qn, qd), 0.0)
    state, norm = tl.load(s + head * D * D + d[:, None] * D + d[None, :]), tl.load(z + head * D + d)
    out = tl.dot(feature, state, input_precision=PRECISION) / (tl.sum(feature * norm[None, :], 1) + eps)[:, None]
    o += (head // H) * ob + (head % H) * oh
    tl.store(o + n[:, None] * on + d[None, :] * od, out.to(o.dtype.element_ty), mask=n[:, None] < N)


@triton.jit
def _grad_state(
    q, g, s, z, dq, ds, dz, eps, N, H, SHARE, qb, qn, qh, qd, gb, gn, gh, gd, db, dn, dh, dd, D: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    head, share, shares = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    q += (head // H) * qb + (head % H) * qh
    g += (head // H) * gb + (head % H) * gh
    dq += (head // H) * db + (head % H) * dh
    d = tl.arange(0, D)
    state, norm = tl.load(s + head * D * D + d[:, None] * D + d[None, :]), tl.load(z + head * D + d)
    grad_state, grad_norm = tl.zeros((D, D), tl.float32), tl.zeros((D,), tl.float32)
    for begin in range(share * SHARE, tl.minimum(share * SHARE + SHARE, N), BLOCK):
        n = begin + tl.arange(0, BLOCK).to(tl.int64)
        query = _rows(q, n, d, N, qn, qd)
        feature = tl.maximum(query, 0.0)
        below = tl.sum(feature * norm[None, :], 1) + eps
        out = tl.dot(feature, state, input_precision=PRECISION) / below[:, None]
        grad = _rows(g, n, d, N, gn, gd)
        grad_below = -tl.sum(grad * out, 1) / below
        grad = grad / below[:, None]
        grad_feature = tl.dot(grad, tl.trans(state), input_precision=PRECISION) + grad_below[:, None] * norm[None, :]
        grad_feature = tl.where(query > 0, grad_feature, 0.0)
        tl.store(dq + n[:, None] * dn + d[None, :] * dd, grad_feature.to(dq.dtype.element_ty), mask=n[:, None] < N)
        grad_state += tl.dot(tl.trans(feature), grad, input_precision=PRECISION)
        grad_norm += tl.sum(feature * grad_below[:, None], 0)
    place = head * shares + share
    tl.store(ds + place * D * D + d[:, None] * D + d[None, :], grad_state)
    tl.store(dz + place * D + d, grad_norm)


@triton.jit
def _grad_apply(
    k, v, ds, dz, dk, dv, N, H, kb, kn, kh, kd, vb, vn, vh, vd, db, dn, dh, dd, D: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    head = tl.program_id(0).to(tl.int64)
    n, d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK).to(tl.int64), tl.arange(0, D)
    key = _rows(k + (head // H) * kb + (head % H) * kh, n, d, N, kn, kd)
    value = _rows(v + (head // H) * vb + (head % H) * vh, n, d, N, vn, vd)
    grad_state, grad_norm = tl.load(ds + head * D * D + d[:, None] * D + d[None, :]), tl.load(dz + head * D + d)
    grad_key = tl.dot(value, tl.trans(grad_state), input_precision=PRECISION) + grad_norm[None, :]
    grad_value = tl.dot(tl.maximum(key, 0.0), grad_state, input_precision=PRECISION)
    place = (head // H) * db + (head % H) * dh + n[:, None] * dn + d[None, :] * dd
    tl.store(dk + place, tl.where(key > 0, grad_key, 0.0).to(dk.dtype.element_ty), mask=n[:, None] < N)
    tl.store(dv + place, grad_value.to(dv.dtype.element_ty), mask=n[:, None] < N)


def _plan(q: Tensor) -> tuple[int, int, int]:
    """(block of tokens, tokens per share, shares)."""
    b, n, h, d = q.shape
    block = 64 if d <= 64 else 32
    shares = max(1, min(triton.cdiv(programs(q.device), b * h), triton.cdiv(n, 2 * block)))
    share = triton.cdiv(triton.cdiv(n, shares), block) * block
    return block, share, triton.cdiv(n, share)


def _options(q: Tensor, block: int) -> dict[str, Any]:
    """Constants of all four kernels; at d = 128 three TF32 products would need more shared memory than a program has, so plain float32 is taken."""
    d = q.shape[-1]
    exact = d == 128 and q.dtype != torch.bfloat16
    return {"D": d, "BLOCK": block, "PRECISION": "ieee" if exact else precision(q.dtype), "num_warps": 8 if d == 128 else 4}


class _LinearAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, eps: float) -> Tensor:
        b, n, h, d = q.shape
        block, share, shares = _plan(q)
        options = _options(q, block)
        s, z = q.new_empty(b * h, shares, d, d, dtype=torch.float32), q.new_empty(b * h, shares, d, dtype=torch.float32)
        _state[(b * h, shares)](k, v, s, z, n, h, share, *k.stride(), *v.stride(), **options)
        s, z = s.sum(1), z.sum(1)
        out = torch.empty((b, n, h, d), dtype=q.dtype, device=q.device)
        _apply[(b * h, triton.cdiv(n, block))](q, s, z, out, eps, n, h, *q.stride(), *out.stride(), **options)
        ctx.save_for_backward(q, k, v, s, z)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        q, k, v, s, z = ctx.saved_tensors
        b, n, h, d = q.shape
        block, share, shares = _plan(q)
        options = _options(q, block)
        dq, dk, dv = (torch.empty((b, n, h, d), dtype=t.dtype, device=t.device) for t in (q, k, v))
        ds, dz = q.new_empty(b * h, shares, d, d, dtype=torch.float32), q.new_empty(b * h, shares, d, dtype=torch.float32)
        _grad_state[(b * h, shares)](q, g, s, z, dq, ds, dz, ctx.eps, n, h, share, *q.stride(), *g.stride(), *dq.stride(), **options)
        ds, dz = ds.sum(1), dz.sum(1)
        _grad_apply[(b * h, triton.cdiv(n, block))](k, v, ds, dz, dk, dv, n, h, *k.stride(), *v.stride(), *dk.stride(), **options)
        return dq, dk, dv, None


def linear_attention(q: Tensor, k: Tensor, v: Tensor, eps: float = 1e-15) -> Tensor:
    """See :func:`zoo_kernels.operations.linear_attention.reference.linear_attention`.

    Raises:
        ValueError: d is not a power of two from 16 to 128.
    """
    d = q.shape[-1]
    if d & (d - 1) or not 16 <= d <= 128:
        raise ValueError(f"linear_attention=triton: head size {d} is not a power of two from 16 to 128")
    if q.numel() == 0:
        return (q + k + v) * 0
    return _LinearAttention.apply(q, k, v, eps)  # type: ignore[no-any-return]
