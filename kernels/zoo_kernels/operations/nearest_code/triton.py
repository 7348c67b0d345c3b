"""Triton: a block of vectors meets the codebook block by block and keeps the best score and its index; the [M, K] scores never reach memory."""
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo_kernels.operations.nearest_code.reference import prepare


@triton.jit
def _nearest(
    x, codes, offsets, out, M, K, D, xm, xd, ck, cd, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    best, index = tl.full((BLOCK_M,), float("-inf"), tl.float32), tl.zeros((BLOCK_M,), tl.int32)
    for begin in range(0, K, BLOCK_K):
        k = begin + tl.arange(0, BLOCK_K)
        score = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
        for part in range(0, D, BLOCK_D):
            d = part + tl.arange(0, BLOCK_D)
            left = tl.load(x + m[:, None] * xm + d[None, :] * xd, mask=(m < M)[:, None] & (d < D)[None, :], other=0.0).to(tl.float32)
            right = tl.load(codes + k[None, :] * ck + d[:, None] * cd, mask=(k < K)[None, :] & (d < D)[:, None], other=0.0)
            score += tl.dot(left, right, input_precision=PRECISION)
        score -= tl.load(offsets + k, mask=k < K, other=float("inf"))[None, :]
        top, place = tl.max(score, 1, return_indices=True)  # ties: the lowest index
        index = tl.where(top > best, begin + place, index)
        best = tl.maximum(top, best)
    tl.store(out + m, index.to(tl.int64), mask=m < M)


@torch.no_grad()
def nearest_code(x: Tensor, codebook: Tensor, metric: str = "l2") -> Tensor:
    """See :func:`zoo_kernels.operations.nearest_code.reference.nearest_code`."""
    codes, offsets = prepare(codebook, metric)
    codes = codes.contiguous()
    flat = x.reshape(-1, x.shape[-1])
    out = torch.empty(flat.shape[0], dtype=torch.int64, device=x.device)
    if flat.shape[0]:
        precision = "ieee"  # distances differ in their last bits: full float32, whatever the input
        options = {"BLOCK_M": 64, "BLOCK_K": 64, "BLOCK_D": min(64, max(16, triton.next_power_of_2(x.shape[-1]))), "PRECISION": precision}
        _nearest[(triton.cdiv(flat.shape[0], 64),)](flat, codes, offsets, out, *flat.shape[:1], *codes.shape, *flat.stride(), *codes.stride(), **options)
    return out.view(x.shape[:-1])
