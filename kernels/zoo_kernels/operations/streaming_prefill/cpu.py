"""CPU: blocks of queries, each with the sinks, its window and itself, through scaled-dot-product attention."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


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
    """See :func:`zoo_kernels.operations.streaming_prefill.reference.streaming_prefill`."""
    length = q.shape[2]
    rows = torch.arange(start, start + length)
    sinks = max(0, min(length, sink - start))  # sink columns among the new tokens
    out = torch.empty(q.shape, dtype=q.dtype)
    block = max(128, min(512, recent))
    for begin in range(0, length, block):
        end = min(begin + block, length)
        low = max(0, begin - recent)
        spans = [span for span in ((0, min(sinks, low)), (low, end)) if span[0] < span[1]]
        keys, values, columns = ([t[..., a:b, :] for a, b in spans] for t in (k, v, rows[:, None]))
        if old_k is not None and old_v is not None and old_columns is not None:
            keys, values, columns = [old_k, *keys], [old_v, *values], [old_columns[:, None], *columns]
        column, row = torch.cat(columns)[:, 0], rows[begin:end, None]
        seen = (column >= 0) & (column <= row) & ((column < sink) | (column >= row - recent))
        out[:, :, begin:end] = F.scaled_dot_product_attention(
            q[:, :, begin:end], torch.cat(keys, 2), torch.cat(values, 2), attn_mask=seen, scale=scale, enable_gqa=True
        )
    return out
