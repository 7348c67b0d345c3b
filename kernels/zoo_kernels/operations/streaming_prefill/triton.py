"""Triton: a block of queries walks over what is left of earlier chunks, the sinks, and its window; blocks in between are never read."""
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo_kernels.flash_decode import LOG2E, check_dim
from zoo_kernels.triton_support import precision


@triton.jit
def _step(query, k, v, n, N, d, seen, kn, kd, vn, vd, scale, top, total, value, PRECISION: tl.constexpr):
    key = tl.load(k + n[None, :] * kn + d[:, None] * kd, mask=(n < N)[None, :], other=0.0)
    score = tl.where(seen & (n < N)[None, :], tl.dot(query, key, input_precision=PRECISION) * scale, float("-inf"))
    new_top = tl.maximum(top, tl.max(score, 1))
    base = tl.where(new_top == float("-inf"), 0.0, new_top)
    weight, factor = tl.exp2(score - base[:, None]), tl.exp2(top - base)
    rows = tl.load(v + n[:, None] * vn + d[None, :] * vd, mask=(n < N)[:, None], other=0.0)
    value = value * factor[:, None] + tl.dot(weight.to(rows.dtype), rows, input_precision=PRECISION)
    return new_top, total * factor + tl.sum(weight, 1), value


@triton.jit
def _prefill(
    q, k, v, ok, ov, columns, out, scale, SINK, RECENT, START, H, G, N, M, qb, qh, qn, qd, kb, kh, kn, kd, vb, vh, vn, vd,
    okb, okh, okn, okd, ovb, ovh, ovn, ovd, ob, oh, on, od, D: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr, OLD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1).to(tl.int64)
    batch, h, hk = head // H, head % H, (head % H) // G
    begin = tl.program_id(0) * ROWS
    i, d = begin + tl.arange(0, ROWS).to(tl.int64), tl.arange(0, D)
    query = tl.load(q + batch * qb + h * qh + i[:, None] * qn + d[None, :] * qd, mask=(i < N)[:, None], other=0.0)
    top, total = tl.full((ROWS,), float("-inf"), tl.float32), tl.zeros((ROWS,), tl.float32)
    value = tl.zeros((ROWS, D), tl.float32)
    if OLD:
        for base in range(0, M, STEP):
            n = base + tl.arange(0, STEP).to(tl.int64)
            c = tl.load(columns + n, mask=n < M, other=-1)
            seen = (c >= 0)[None, :] & ((c < SINK)[None, :] | (c[None, :] >= (START + i)[:, None] - RECENT))
            top, total, value = _step(
                query, ok + batch * okb + hk * okh, ov + batch * ovb + hk * ovh, n, M, d, seen, okn, okd, ovn, ovd, scale, top, total, value, PRECISION
            )
    k += batch * kb + hk * kh
    v += batch * vb + hk * vh
    low = tl.maximum(0, begin - RECENT) // STEP * STEP
    sinks = tl.minimum(tl.maximum(SINK - START, 0), low)
    for base in range(0, sinks, STEP):
        n = base + tl.arange(0, STEP).to(tl.int64)
        seen = (n < sinks)[None, :] & (i >= 0)[:, None]
        top, total, value = _step(query, k, v, n, N, d, seen, kn, kd, vn, vd, scale, top, total, value, PRECISION)
    for base in range(low, tl.minimum(begin + ROWS, N), STEP):
        n = base + tl.arange(0, STEP).to(tl.int64)
        seen = (n[None, :] <= i[:, None]) & ((n[None, :] >= i[:, None] - RECENT) | (START + n < SINK)[None, :])
        top, total, value = _step(query, k, v, n, N, d, seen, kn, kd, vn, vd, scale, top, total, value, PRECISION)
    value = value / tl.where(total == 0.0, 1.0, total)[:, None]
    tl.store(out + batch * ob + h * oh + i[:, None] * on + d[None, :] * od, value.to(out.dtype.element_ty), mask=(i < N)[:, None])


@torch.no_grad()
def streaming_prefill(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sink: int,
    recent: int,
    old_k: Tensor | None = None,
    old_v: Tensor | None = None,
    old_columns: Tensor | None = None,
    start: int = 0,
    scale: float | None = None,
) -> Tensor:
    """See :func:`zoo_kernels.operations.streaming_prefill.reference.streaming_prefill`.

    Raises:
        ValueError: d is not a power of two from 16 to 256.
    """
    b, h, n, d = q.shape
    check_dim("streaming_prefill", d)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    if not q.numel():
        return out
    has_old = old_k is not None and old_v is not None and old_columns is not None and old_columns.numel() > 0
    before_k, before_v, columns = (old_k, old_v, old_columns) if has_old else (k, v, k)
    assert before_k is not None and before_v is not None and columns is not None
    rows = 64 if d * q.element_size() <= 256 else 32  # keys and values of a step must fit into shared memory
    _prefill[(triton.cdiv(n, rows), b * h)](
        q, k, v, before_k, before_v, columns, out, (d**-0.5 if scale is None else scale) * LOG2E.value, sink, recent, start, h, h // k.shape[1], n,
        before_k.shape[2] if has_old else 0, *q.stride(), *k.stride(), *v.stride(), *before_k.stride(), *before_v.stride(), *out.stride(),
        D=d, ROWS=rows, STEP=rows if d * q.element_size() <= 512 else 16, OLD=has_old, PRECISION=precision(q.dtype),
    )  # fmt: skip
    return out
