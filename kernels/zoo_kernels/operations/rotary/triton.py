"""Triton: one pass; the gradient is the rotation by the negative angle."""
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo_kernels.operations.rotary.reference import angles


@triton.jit
def _rotate(
    x, cos, sin, ids, out, sign, H, N, D, xb, xh, xn, xd, cb, cn, cd, ib, i_n, ob, oh, on, od,
    HALF: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr,
    FIRST: tl.constexpr, SECOND: tl.constexpr, STEP: tl.constexpr, IDS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1).to(tl.int64)
    batch = head // H
    n, i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, BLOCK_H)
    mask = (n < N)[:, None] & (i < HALF)[None, :]
    if IDS:
        row = tl.load(ids + batch * ib + n * i_n, mask=n < N, other=0)
        place = row[:, None] * cn + i[None, :] * cd
    else:
        place = batch * cb + n[:, None] * cn + i[None, :] * cd
    c = tl.load(cos + place, mask=mask, other=0.0).to(tl.float32)
    s = tl.load(sin + place, mask=mask, other=0.0).to(tl.float32) * sign
    x += batch * xb + (head % H) * xh
    out += batch * ob + (head % H) * oh
    first, second = FIRST + STEP * i, SECOND + STEP * i
    a = tl.load(x + n[:, None] * xn + first[None, :] * xd, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(x + n[:, None] * xn + second[None, :] * xd, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + n[:, None] * on + first[None, :] * od, (a * c - b * s).to(out.dtype.element_ty), mask=mask)
    tl.store(out + n[:, None] * on + second[None, :] * od, (b * c + a * s).to(out.dtype.element_ty), mask=mask)
    if BLOCK_D > 0:  # channels that are not rotated
        d = 2 * HALF + tl.arange(0, BLOCK_D)
        rest = (n < N)[:, None] & (d < D)[None, :]
        tl.store(out + n[:, None] * on + d[None, :] * od, tl.load(x + n[:, None] * xn + d[None, :] * xd, mask=rest), mask=rest)


def _launch(x: Tensor, cos: Tensor, sin: Tensor, ids: Tensor | None, interleaved: bool, rotary_dim: int, sign: float) -> Tensor:
    b, h, n, d = x.shape
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    half = rotary_dim // 2
    block_h = triton.next_power_of_2(half)
    block = max(1, min(64, 4096 // block_h))
    cosine = (0, *cos.stride()) if ids is not None else (cos.stride(0) if cos.shape[0] > 1 else 0, *cos.stride()[1:])
    places = (ids.stride(0) if ids.shape[0] > 1 else 0, ids.stride(1)) if ids is not None else (0, 0)
    _rotate[(triton.cdiv(n, block), b * h)](
        x, cos, sin, cos if ids is None else ids, out, sign, h, n, d, *x.stride(), *cosine, *places, *out.stride(),
        HALF=half, BLOCK_H=block_h, BLOCK_D=triton.next_power_of_2(d - rotary_dim) if d > rotary_dim else 0, BLOCK=block,
        FIRST=0, SECOND=1 if interleaved else half, STEP=2 if interleaved else 1, IDS=ids is not None,
    )  # fmt: skip
    return out


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, ids: Tensor | None, interleaved: bool, rotary_dim: int) -> Tensor:
        ctx.save_for_backward(cos, sin, ids)
        ctx.options = (interleaved, rotary_dim)
        return _launch(x, cos, sin, ids, interleaved, rotary_dim, 1.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin, ids = ctx.saved_tensors
        interleaved, rotary_dim = ctx.options
        return _launch(grads[0], cos, sin, ids, interleaved, rotary_dim, -1.0), None, None, None, None, None


def rotary(x: Tensor, cos: Tensor, sin: Tensor, style: str = "half", position_ids: Tensor | None = None, rotary_dim: int | None = None) -> Tensor:
    """See :func:`zoo_kernels.operations.rotary.reference.rotary`."""
    r = x.shape[-1] if rotary_dim is None else rotary_dim
    cos, sin = angles(cos, sin, style, None, r)
    if cos.stride() != sin.stride():
        cos, sin = cos.contiguous(), sin.contiguous()
    if x.numel() == 0 or r == 0:
        return x * 1
    return _Rotary.apply(x, cos, sin, position_ids, style == "interleaved", r)  # type: ignore[no-any-return]
