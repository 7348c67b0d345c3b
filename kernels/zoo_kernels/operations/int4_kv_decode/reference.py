"""The definition: restore, then attend."""

from __future__ import annotations

import torch
from torch import Tensor


def restore(codes: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """uint8 [..., d/2], scale and zero [..., g] -> float32 [..., d]."""
    values = torch.stack((codes >> 4, codes & 15), -1).flatten(-2).float().unflatten(-1, (scale.shape[-1], -1))
    return (values * scale.float().unsqueeze(-1) + zero.float().unsqueeze(-1)).flatten(-2)


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
    """[B, H, G, d] -> [B, H, G, d]; see the package docstring."""
    score = q.float() @ restore(k_codes, k_scale, k_zero).transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if first is not None:
        hidden = torch.arange(k_codes.shape[2], device=q.device)[None] < first[:, None]
        score = score.masked_fill(hidden[:, None, None], float("-inf"))
    return (torch.softmax(score, -1).nan_to_num(0.0) @ restore(v_codes, v_scale, v_zero)).to(q.dtype)
