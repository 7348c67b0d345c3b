"""The definition: a dense mask (quadratic in the tokens)."""

from __future__ import annotations

import torch
from torch import Tensor


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
    """[B, H, N, d] -> [B, H, N, d]; see the package docstring."""
    rows = torch.arange(start, start + q.shape[2], device=q.device)
    columns = rows
    if old_k is not None and old_v is not None and old_columns is not None:
        k, v, columns = torch.cat((old_k, k), 2), torch.cat((old_v, v), 2), torch.cat((old_columns, rows))
    seen = (columns >= 0) & (columns <= rows[:, None]) & ((columns < sink) | (columns >= rows[:, None] - recent))
    k, v = (t.float().repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
    score = q.float() @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return (torch.softmax(score.masked_fill(~seen, float("-inf")), -1) @ v).to(q.dtype)
