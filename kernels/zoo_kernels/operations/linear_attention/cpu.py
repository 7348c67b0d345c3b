"""CPU: no copy of v with ones, and the ReLU fused into the cast.

The normaliser is one more product with the sum of the keys' features; for the transposed product the key features are made once in [B, H, N, d].
"""

from __future__ import annotations

import torch
from torch import Tensor


def linear_attention(q: Tensor, k: Tensor, v: Tensor, eps: float = 1e-15) -> Tensor:
    """See :func:`zoo_kernels.operations.linear_attention.reference.linear_attention`."""
    dtype = q.dtype
    features_q = q.transpose(1, 2).clamp_min(0).float()
    features_k = k.transpose(1, 2).clamp_min(0).float()
    state = features_k.transpose(-1, -2) @ v.transpose(1, 2).float()
    norm = features_q @ features_k.sum(-2).unsqueeze(-1)
    out = (features_q @ state) / (norm + eps)
    return out.transpose(1, 2).to(dtype) if dtype != torch.float32 else out.transpose(1, 2)
