"""Triton, in two passes over the small picture: entropy and, per block of columns, the number of pixels it selects in the large one; then, at the places that
a prefix sum of the counts gives, the coordinates.  No mask, no upsampled scores, no probabilities reach memory."""
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo_kernels.operations.entropy_select import LIMIT
from zoo_kernels.operations.entropy_select.reference import CLAMP, coordinates_of, nearest_index

FLOOR = tl.constexpr(CLAMP)


@triton.jit
def _entropy(scores, repeats, entropy, counts, threshold, ROWS, W, C, sb, sc, sr, sw, CLASSES: tl.constexpr, BLOCK: tl.constexpr):
    line = tl.program_id(0).to(tl.int64)
    w = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, CLASSES)
    place = scores + (line // ROWS) * sb + (line % ROWS) * sr + c[:, None] * sc + w[None, :] * sw
    value = tl.load(place, mask=(c < C)[:, None] & (w < W)[None, :], other=float("-inf")).to(tl.float32)
    value = tl.where((w < W)[None, :], value, 0.0)
    p = tl.exp(value - tl.max(value, 0)[None, :])
    p = p / tl.sum(p, 0)[None, :]
    result = -tl.sum(p * tl.log(tl.maximum(p, FLOOR)), 0)
    tl.store(entropy + line * W + w, result, mask=w < W)
    repeat = tl.load(repeats + w, mask=w < W, other=0)
    tl.store(counts + line * tl.num_programs(1) + tl.program_id(1), tl.sum(tl.where(result > threshold, repeat, 0), 0))


@triton.jit
def _compact(entropy, rows, repeats, starts, offsets, out, threshold, LARGE, ROWS, W, MOST, BLOCK: tl.constexpr):
    line = tl.program_id(0).to(tl.int64)
    image, row = line // LARGE, line % LARGE
    w = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(entropy + (image * ROWS + tl.load(rows + row)) * W + w, mask=w < W, other=float("-inf"))
    repeat = tl.where((value > threshold) & (w < W), tl.load(repeats + w, mask=w < W, other=0), 0)
    start = tl.load(starts + w, mask=w < W, other=0)
    place = tl.load(offsets + line * tl.num_programs(1) + tl.program_id(1)) + (tl.cumsum(repeat, 0) - repeat).to(tl.int64)
    for copy in range(0, MOST):
        target = out + (place + copy) * 3
        tl.store(target, (image + w * 0).to(tl.int32), mask=copy < repeat)
        tl.store(target + 1, (row + w * 0).to(tl.int32), mask=copy < repeat)
        tl.store(target + 2, start + copy, mask=copy < repeat)


@functools.lru_cache(maxsize=16)
def _columns(source: int, target: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """int32 [source]: how many columns of the large picture a column of the small one becomes, and the first of them (neighbours stay neighbours)."""
    index = nearest_index(source, target, device)
    repeats = torch.zeros(source, dtype=torch.int32, device=device).index_add_(0, index, torch.ones_like(index, dtype=torch.int32))
    return repeats, (repeats.cumsum(0) - repeats).to(torch.int32)


@functools.lru_cache(maxsize=16)
def _rows(source: int, target: int, device: torch.device) -> Tensor:
    return nearest_index(source, target, device)


@torch.no_grad()
def entropy_select(scores: Tensor, threshold: float, size: tuple[int, int] | None = None, channels_last: bool = False) -> tuple[Tensor, Tensor]:
    """See :func:`zoo_kernels.operations.entropy_select.reference.entropy_select`; waits once for the number of pixels.

    Raises:
        ValueError: The scores do not have four dimensions, or more than ``LIMIT`` classes.
    """
    if scores.dim() != 4:
        raise ValueError(f"entropy_select: scores {tuple(scores.shape)} are not [B, C, h, w] or [B, h, w, C]")
    ordered = scores.permute(0, 3, 1, 2) if channels_last else scores
    images, classes, height, width = ordered.shape
    if classes > LIMIT:
        raise ValueError(f"entropy_select=triton: {classes} classes are above {LIMIT}")
    high, wide = (height, width) if size is None else (int(size[0]), int(size[1]))
    entropy = torch.empty((images, height, width), dtype=torch.float32, device=scores.device)
    if not scores.numel():
        return coordinates_of(entropy.zero_(), float("inf"), size), entropy
    bound = float(torch.tensor(threshold, dtype=torch.float32))  # a float32 whatever reads it
    block = max(16, min(256, 8192 // triton.next_power_of_2(classes), triton.next_power_of_2(width)))
    blocks = triton.cdiv(width, block)
    repeats, starts = _columns(width, wide, scores.device)
    rows = _rows(height, high, scores.device)
    counts = torch.zeros((images, height, blocks), dtype=torch.int32, device=scores.device)
    grid = (images * height, blocks)
    _entropy[grid](ordered, repeats, entropy, counts, bound, height, width, classes, *ordered.stride(), CLASSES=triton.next_power_of_2(classes), BLOCK=block)
    ends = counts[:, rows].flatten().cumsum(0)  # int64: one entry per row of the large picture and block
    total = int(ends[-1]) if ends.numel() else 0
    out = torch.empty((total, 3), dtype=torch.int32, device=scores.device)
    offsets = torch.cat((ends.new_zeros(1), ends[:-1]))
    if ends.numel():
        most = -(-wide // width) + 1
        _compact[(images * high, blocks)](entropy, rows, repeats, starts, offsets, out, bound, high, height, width, most, BLOCK=block)
    return out, entropy
