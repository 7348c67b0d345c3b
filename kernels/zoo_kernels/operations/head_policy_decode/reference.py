"""The definition: every kv-head on its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, scale: float) -> Tensor:
    """Softmax attention in float32: q [B, G, d], k and v [B, L, d], keep [B or 1, L] bool -> [B, G, d] float32; rows without any key give 0."""
    score = q.float() @ k.float().transpose(-1, -2) * scale
    if keep is not None:
        score = score.masked_fill(~keep[:, None], float("-inf"))
    return torch.softmax(score, -1).nan_to_num(0.0) @ v.float()


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
    """[B, H, G, d] -> [B, H, G, d]; see the package docstring."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    columns = torch.arange(full_k.shape[2], device=q.device)
    real = None if first is None else columns[None] >= first[:, None]
    heads = []
    for head, slot in enumerate(slots):
        if slot >= 0:
            heads.append(attend(q[:, head], full_k[:, slot], full_v[:, slot], real, scale))
        else:
            heads.append(attend(q[:, head], ring_k[:, -1 - slot], ring_v[:, -1 - slot], ring_valid, scale))
    return torch.stack(heads, 1).to(q.dtype)
