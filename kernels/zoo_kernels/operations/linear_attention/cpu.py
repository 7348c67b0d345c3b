"""CPU: no copy of v with ones; transposition and cast in one pass, the ReLU in place where no gradient is wanted."""

from __future__ import annotations

import torch
from torch import Tensor


def _wide(x: Tensor) -> Tensor:
    """[B, N, H, d] -> contiguous fp32 [B, H, N, d] in one pass (always a fresh tensor)."""
    return x.transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format, copy=True)


def linear_attention(q: Tensor, k: Tensor, v: Tensor, eps: float = 1e-15) -> Tensor:
    """See :func:`zoo_kernels.operations.linear_attention.reference.linear_attention`."""
    wide_q, wide_k, wide_v = _wide(q), _wide(k), _wide(v)
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        wide_q, wide_k = wide_q.clamp_min(0), wide_k.clamp_min(0)
        out = (wide_q @ (wide_k.transpose(-1, -2) @ wide_v)) / (wide_q @ wide_k.sum(-2).unsqueeze(-1) + eps)
    else:
        wide_q.clamp_min_(0)
        wide_k.clamp_min_(0)
        norm = wide_q @ wide_k.sum(-2).unsqueeze(-1)
        out = (wide_q @ (wide_k.transpose(-1, -2) @ wide_v)).div_(norm.add_(eps))
    return out.transpose(1, 2).to(q.dtype)
