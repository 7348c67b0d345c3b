"""CPU: the history in pieces (no restored copy of the whole cache), and scale and zero applied to scores and weights instead of to every channel.

With one group per head, ``q . (code s + z) = s (q . code) + z sum(q)``; for the values, ``sum_n w_n (code_n s_n + z_n) = (w s) @ code + sum(w z)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo_kernels.operations.int4_kv_decode import reference

CHUNK = 4096
"""Tokens per piece."""


def _codes(codes: Tensor) -> Tensor:
    out = torch.empty((*codes.shape[:-1], 2, codes.shape[-1]), dtype=torch.float32)
    out[..., 0, :] = codes >> 4
    out[..., 1, :] = codes & 15
    return out.flatten(-2)  # even channels, then odd ones


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
    """See :func:`zoo_kernels.operations.int4_kv_decode.reference.int4_kv_decode`."""
    if k_scale.shape[-1] != 1 or v_scale.shape[-1] != 1:
        return reference.int4_kv_decode(q, k_codes, k_scale, k_zero, v_codes, v_scale, v_zero, first, scale)
    length, dim = k_codes.shape[2], q.shape[-1]
    query = q.float() * (dim**-0.5 if scale is None else scale)
    total_q = query.sum(-1, keepdim=True)
    query = torch.cat((query[..., 0::2], query[..., 1::2]), -1)
    score = torch.empty((*q.shape[:3], length))
    for begin in range(0, length, CHUNK):
        piece = slice(begin, begin + CHUNK)
        part = query @ _codes(k_codes[:, :, piece]).transpose(-1, -2)
        score[..., piece] = part * k_scale[:, :, None, piece, 0].float() + total_q * k_zero[:, :, None, piece, 0].float()
    if first is not None:
        score.masked_fill_((torch.arange(length)[None] < first[:, None])[:, None, None], float("-inf"))
    weight = torch.softmax(score, -1)
    if first is not None:
        weight.nan_to_num_(0.0)
    out = torch.zeros((*q.shape[:3], dim))
    for begin in range(0, length, CHUNK):
        piece = slice(begin, begin + CHUNK)
        out += (weight[..., piece] * v_scale[:, :, None, piece, 0].float()) @ _codes(v_codes[:, :, piece])
        out += (weight[..., piece] * v_zero[:, :, None, piece, 0].float()).sum(-1, keepdim=True)
    return out.unflatten(-1, (2, dim // 2)).transpose(-1, -2).flatten(-2).to(q.dtype)
