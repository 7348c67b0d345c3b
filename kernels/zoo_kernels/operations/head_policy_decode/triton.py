"""Triton: full and ring heads in one launch; programs whose share lies beyond a ring's slots end at once."""
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo_kernels.flash_decode import BLOCK, LOG2E, Shares, check_dim, weights
from zoo_kernels.triton_support import precision


@triton.jit
def _partial(
    q, fk, fv, rk, rv, slots, valid, first, tops, totals, values, scale, H, L, S, SHARE, qb, qh, qg, qd,
    fkb, fkh, fkn, fkd, fvb, fvh, fvn, fvd, rkb, rkh, rkn, rkd, rvb, rvh, rvn, rvd, vb, vn,
    G: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr, STEP: tl.constexpr, VALID: tl.constexpr, FIRST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head, share, shares = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    batch = head // H
    slot = tl.load(slots + head % H).to(tl.int64)
    full = slot >= 0
    if full:
        k, v, kn, kd, vn_, vd, length = fk + batch * fkb + slot * fkh, fv + batch * fvb + slot * fvh, fkn, fkd, fvn, fvd, L
    else:
        k, v, kn, kd, vn_, vd, length = rk + batch * rkb + (-1 - slot) * rkh, rv + batch * rvb + (-1 - slot) * rvh, rkn, rkd, rvn, rvd, S
    g, d = tl.arange(0, ROWS), tl.arange(0, D)
    query = tl.load(q + batch * qb + (head % H) * qh + g[:, None] * qg + d[None, :] * qd, mask=(g < G)[:, None], other=0.0)
    top, total = tl.full((ROWS,), float("-inf"), tl.float32), tl.zeros((ROWS,), tl.float32)
    value = tl.zeros((ROWS, D), tl.float32)
    start = 0
    if FIRST:
        start = tl.load(first + batch).to(tl.int32)
    for begin in range(share * SHARE, tl.minimum(share * SHARE + SHARE, length), STEP):
        n = begin + tl.arange(0, STEP).to(tl.int64)
        keep = n < length
        if FIRST:
            keep = keep & ((n >= start) | (slot < 0))
        if VALID:
            keep = keep & ((tl.load(valid + batch * vb + n * vn, mask=n < tl.where(full, 0, S), other=1) != 0) | full)
        key = tl.load(k + n[None, :] * kn + d[:, None] * kd, mask=(n < length)[None, :], other=0.0)
        score = tl.dot(query, key, input_precision=PRECISION) * scale
        weight, factor, top, total = weights(score, keep, top, total)
        rows = tl.load(v + n[:, None] * vn_ + d[None, :] * vd, mask=(n < length)[:, None], other=0.0)
        value = value * factor[:, None] + tl.dot(weight.to(rows.dtype), rows, input_precision=PRECISION)
    place = (head * shares + share) * ROWS + g
    tl.store(tops + place, top)
    tl.store(totals + place, total)
    tl.store(values + place[:, None] * D + d[None, :], value)


@functools.lru_cache(maxsize=1024)
def _table(slots: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(slots, dtype=torch.int32, device=device)


@torch.no_grad()
def head_policy_decode(
    q: Tensor,
    full_k: Tensor,
    full_v: Tensor,
    ring_k: Tensor,
    ring_v: Tensor,
    slots: Sequence[int],
    ring_valid: Tensor | None = None,
    first: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """See :func:`zoo_kernels.operations.head_policy_decode.reference.head_policy_decode`.

    Raises:
        ValueError: d is not a power of two from 16 to 256.
    """
    b, h, g, d = q.shape
    check_dim("head_policy_decode", d)
    if not q.numel():
        return torch.empty_like(q)
    length, ring = full_k.shape[2] if full_k.shape[1] else 0, ring_k.shape[2] if ring_k.shape[1] else 0
    shares = Shares(q, max(length, ring))
    valid = q if ring_valid is None else ring_valid.view(torch.uint8)
    steps = (0, 0) if ring_valid is None else (valid.stride(0) if valid.shape[0] > 1 else 0, valid.stride(1))
    _partial[(b * h, shares.count)](
        q, full_k, full_v, ring_k, ring_v, _table(tuple(slots), q.device), valid, q if first is None else first, shares.tops, shares.totals, shares.values,
        (d**-0.5 if scale is None else scale) * LOG2E.value, h, length, ring, shares.share, *q.stride(),
        *full_k.stride(), *full_v.stride(), *ring_k.stride(), *ring_v.stride(), *steps,
        G=g, ROWS=shares.rows, D=d, STEP=BLOCK, VALID=ring_valid is not None, FIRST=first is not None, PRECISION=precision(q.dtype),
    )  # fmt: skip
    return shares.combine()
