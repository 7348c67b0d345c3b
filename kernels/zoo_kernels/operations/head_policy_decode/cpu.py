"""CPU: one scaled-dot-product call per kind of head; caches are read in place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


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
    """See :func:`zoo_kernels.operations.head_policy_decode.reference.head_policy_decode`."""
    out = torch.empty(q.shape, dtype=q.dtype)
    real = None if first is None else torch.arange(full_k.shape[2])[None] >= first[:, None]
    for kind, keys, values, keep in ((0, full_k, full_v, real), (1, ring_k, ring_v, ring_valid)):
        heads = [i for i, slot in enumerate(slots) if (slot < 0) == bool(kind)]
        if not heads:
            continue
        rows = [slots[i] if not kind else -1 - slots[i] for i in heads]
        if rows != list(range(keys.shape[1])):
            keys, values = keys[:, rows], values[:, rows]
        mask = None if keep is None else keep[:, None, None]
        part = F.scaled_dot_product_attention(q[:, heads], keys, values, attn_mask=mask, scale=scale)
        out[:, heads] = part if mask is None else part.nan_to_num(0.0)
    return out
