"""Parts shared by the Triton kernels that attend with one new token: one step of the online softmax, and the combination of the shares.

Queries of one kv-head become the rows of one product, so keys and values are read once; the history is split over programs, whose partial results
(largest score, sum, weighted values) are combined in a fixed order.
"""
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo_kernels.triton_support import programs

LOG2E = tl.constexpr(1.4426950408889634)
BLOCK = 64
"""Tokens per step."""


@triton.jit
def weights(score, keep, top, total):
    """Online softmax (scores in base 2): (weights of this block, factor for what was added before, new largest score, new sum)."""
    score = tl.where(keep[None, :], score, float("-inf"))
    new_top = tl.maximum(top, tl.max(score, 1))
    base = tl.where(new_top == float("-inf"), 0.0, new_top)
    weight = tl.exp2(score - base[:, None])
    factor = tl.exp2(top - base)
    return weight, factor, new_top, total * factor + tl.sum(weight, 1)


@triton.jit
def _combine(tops, totals, values, out, SHARES, H, ob, oh, og, od, G: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr):
    head = tl.program_id(0).to(tl.int64)
    g, d = tl.arange(0, ROWS), tl.arange(0, D)
    top, total = tl.full((ROWS,), float("-inf"), tl.float32), tl.zeros((ROWS,), tl.float32)
    value = tl.zeros((ROWS, D), tl.float32)
    for share in range(0, SHARES):
        place = (head * SHARES + share) * ROWS + g
        here = tl.load(tops + place)
        new_top = tl.maximum(top, here)
        base = tl.where(new_top == float("-inf"), 0.0, new_top)
        old, new = tl.exp2(top - base), tl.exp2(here - base)
        total = total * old + tl.load(totals + place) * new
        value = value * old[:, None] + tl.load(values + place[:, None] * D + d[None, :]) * new[:, None]
        top = new_top
    value = value / tl.where(total == 0.0, 1.0, total)[:, None]
    out += (head // H) * ob + (head % H) * oh
    tl.store(out + g[:, None] * og + d[None, :] * od, value.to(out.dtype.element_ty), mask=(g < G)[:, None])


class Shares:
    """Buffers for the partial results of ``q`` [B, H, G, d] over a history of ``length`` tokens."""

    def __init__(self, q: Tensor, length: int) -> None:
        b, h, g, d = q.shape
        self.q, self.rows = q, max(16, triton.next_power_of_2(g))
        wanted = max(1, min(triton.cdiv(programs(q.device), max(1, b * h)), triton.cdiv(length, 2 * BLOCK)))
        self.share = max(BLOCK, triton.cdiv(triton.cdiv(length, wanted), BLOCK) * BLOCK)
        self.count = max(1, triton.cdiv(length, self.share))
        self.tops, self.totals = (q.new_empty(b * h, self.count, self.rows, dtype=torch.float32) for _ in range(2))
        self.values = q.new_empty(b * h, self.count, self.rows, d, dtype=torch.float32)

    def combine(self) -> Tensor:
        """[B, H, G, d] in the dtype of q."""
        b, h, g, d = self.q.shape
        out = torch.empty((b, h, g, d), dtype=self.q.dtype, device=self.q.device)
        _combine[(b * h,)](self.tops, self.totals, self.values, out, self.count, h, *out.stride(), G=g, ROWS=self.rows, D=d)
        return out


def check_dim(name: str, dim: int, low: int = 16) -> None:
    """Raises ValueError unless ``dim`` is a power of two from ``low`` to 256."""
    if dim & (dim - 1) or not low <= dim <= 256:
        raise ValueError(f"{name}=triton: head size {dim} is not a power of two from {low} to 256")
