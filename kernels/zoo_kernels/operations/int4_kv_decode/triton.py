"""Triton: codes are restored in registers; even and odd channels are two products of half width, so that nothing has to be interleaved."""
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo_kernels.flash_decode import BLOCK, LOG2E, Shares, check_dim, weights
from zoo_kernels.triton_support import precision


@triton.jit
def _partial(
    q, kc, ks, kz, vc, vs, vz, first, tops, totals, values, scale, H, L, SHARE, qb, qh, qg, qd,
    kcb, kch, kcn, kcd, ksb, ksh, ksn, ksd, kzb, kzh, kzn, kzd, vcb, vch, vcn, vcd, vsb, vsh, vsn, vsd, vzb, vzh, vzn, vzd,
    G: tl.constexpr, ROWS: tl.constexpr, HALF: tl.constexpr, GROUP: tl.constexpr, STEP: tl.constexpr, FIRST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head, share, shares = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    batch, h = head // H, head % H
    g, d = tl.arange(0, ROWS), tl.arange(0, HALF)
    group = 2 * d // GROUP  # even and odd channel of a byte lie in one group
    place = q + batch * qb + h * qh + g[:, None] * qg + 2 * d[None, :] * qd
    even = tl.load(place, mask=(g < G)[:, None], other=0.0).to(tl.float32)
    odd = tl.load(place + qd, mask=(g < G)[:, None], other=0.0).to(tl.float32)
    kc += batch * kcb + h * kch
    ks += batch * ksb + h * ksh
    kz += batch * kzb + h * kzh
    vc += batch * vcb + h * vch
    vs += batch * vsb + h * vsh
    vz += batch * vzb + h * vzh
    top, total = tl.full((ROWS,), float("-inf"), tl.float32), tl.zeros((ROWS,), tl.float32)
    value_even, value_odd = tl.zeros((ROWS, HALF), tl.float32), tl.zeros((ROWS, HALF), tl.float32)
    for begin in range(share * SHARE, tl.minimum(share * SHARE + SHARE, L), STEP):
        n = begin + tl.arange(0, STEP).to(tl.int64)
        keep = n < L
        codes = tl.load(kc + n[None, :] * kcn + d[:, None] * kcd, mask=keep[None, :], other=0)
        step = tl.load(ks + n[None, :] * ksn + group[:, None] * ksd, mask=keep[None, :], other=0.0).to(tl.float32)
        zero = tl.load(kz + n[None, :] * kzn + group[:, None] * kzd, mask=keep[None, :], other=0.0).to(tl.float32)
        score = tl.dot(even, (codes >> 4).to(tl.float32) * step + zero, input_precision=PRECISION)
        score += tl.dot(odd, (codes & 15).to(tl.float32) * step + zero, input_precision=PRECISION)
        if FIRST:
            keep = keep & (n >= tl.load(first + batch))
        weight, factor, top, total = weights(score * scale, keep, top, total)
        inside = (n < L)[:, None]
        codes = tl.load(vc + n[:, None] * vcn + d[None, :] * vcd, mask=inside, other=0)
        step = tl.load(vs + n[:, None] * vsn + group[None, :] * vsd, mask=inside, other=0.0).to(tl.float32)
        zero = tl.load(vz + n[:, None] * vzn + group[None, :] * vzd, mask=inside, other=0.0).to(tl.float32)
        value_even = value_even * factor[:, None] + tl.dot(weight, (codes >> 4).to(tl.float32) * step + zero, input_precision=PRECISION)
        value_odd = value_odd * factor[:, None] + tl.dot(weight, (codes & 15).to(tl.float32) * step + zero, input_precision=PRECISION)
    place = (head * shares + share) * ROWS + g
    tl.store(tops + place, top)
    tl.store(totals + place, total)
    tl.store(values + place[:, None] * (2 * HALF) + 2 * d[None, :], value_even)
    tl.store(values + place[:, None] * (2 * HALF) + 2 * d[None, :] + 1, value_odd)


@torch.no_grad()
def int4_kv_decode(
    q: Tensor,
    k_codes: Tensor,
    k_scale: Tensor,
    k_zero: Tensor,
    v_codes: Tensor,
    v_scale: Tensor,
    v_zero: Tensor,
    first: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """See :func:`zoo_kernels.operations.int4_kv_decode.reference.int4_kv_decode`.

    Raises:
        ValueError: d is not a power of two from 32 to 256, or keys and values are grouped differently.
    """
    b, h, g, d = q.shape
    check_dim("int4_kv_decode", d, 32)
    if k_scale.shape[-1] != v_scale.shape[-1]:
        raise ValueError(f"int4_kv_decode=triton: {k_scale.shape[-1]} groups of key channels but {v_scale.shape[-1]} of value channels")
    if not q.numel():
        return torch.empty_like(q)
    length = k_codes.shape[2]
    shares = Shares(q, length)
    cache = (k_codes, k_scale, k_zero, v_codes, v_scale, v_zero)
    _partial[(b * h, shares.count)](
        q, *cache, q if first is None else first, shares.tops, shares.totals, shares.values, (d**-0.5 if scale is None else scale) * LOG2E.value,
        h, length, shares.share, *q.stride(), *(stride for t in cache for stride in t.stride()),
        G=g, ROWS=shares.rows, HALF=d // 2, GROUP=d // k_scale.shape[-1], STEP=BLOCK, FIRST=first is not None, PRECISION=precision(q.dtype),
    )  # fmt: skip
    return shares.combine()
