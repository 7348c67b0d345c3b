"""What U-ViT and DiT share: sinusoidal time embedding, label table, attention, MLP, patches."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


def timestep_embedding(t: torch.Tensor, size: int, max_period: float = 10000.0) -> torch.Tensor:
    """Sinusoidal embedding [B] -> [B, size], cosines first, float32.

    >>> timestep_embedding(torch.zeros(1), 4)
    tensor([[1., 1., 0., 0.]])
    """
    half = size // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * frequencies
    out = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return F.pad(out, (0, size % 2))


class LabelEmbedding(nn.Module):
    """Table of class embeddings; row ``num_classes`` (present when ``dropout`` > 0) stands for "no class"."""

    def __init__(self, num_classes: int, size: int, dropout: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.dropout = dropout
        self.embedding_table = nn.Embedding(num_classes + int(dropout > 0), size)

    def forward(self, labels: torch.Tensor) -> torch.Tensor:
        """[B] -> [B, size]; in training mode classes are dropped at random."""
        if self.training and self.dropout > 0:
            drop = torch.rand(labels.shape, device=labels.device) < self.dropout
            labels = torch.where(drop, self.num_classes, labels)
        return self.embedding_table(labels)


class Attention(nn.Module):
    """Softmax self-attention computed in float32 when ``full_precision`` (U-ViT), else in the dtype of its input (DiT)."""

    def __init__(self, size: int, heads: int, qkv_bias: bool, full_precision: bool) -> None:
        super().__init__()
        self.heads = heads
        self.full_precision = full_precision
        self.qkv = nn.Linear(size, 3 * size, bias=qkv_bias)
        self.proj = nn.Linear(size, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, size = x.shape
        qkv = self.qkv(x)
        dtype = qkv.dtype
        q, k, v = qkv.view(batch, tokens, 3, self.heads, size // self.heads).permute(2, 0, 3, 1, 4)
        if self.full_precision:
            with torch.autocast(x.device.type, enabled=False):
                out = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
        else:
            out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.to(dtype).transpose(1, 2).reshape(batch, tokens, size))


class MLP(nn.Module):
    """Two linear layers with an activation between them: ``"gelu"``, ``"gelu-tanh"`` or ``"silu"``."""

    def __init__(self, size: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(size, hidden)
        self.act: nn.Module = nn.SiLU() if activation == "silu" else nn.GELU(approximate="tanh" if activation == "gelu-tanh" else "none")
        self.fc2 = nn.Linear(hidden, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x)))


class PatchEmbedding(nn.Module):
    """[B, C, H, W] -> tokens [B, H*W/p^2, size] by a strided convolution."""

    def __init__(self, channels: int, size: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, size, patch, stride=patch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


def unpatchify(tokens: torch.Tensor, channels: int, patch: int) -> torch.Tensor:
    """Tokens [B, n*n, p*p*C] (row, column, channel order within a token) -> [B, C, n*p, n*p]."""
    batch, count, _ = tokens.shape
    side = math.isqrt(count)
    x = tokens.reshape(batch, side, side, patch, patch, channels).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(batch, channels, side * patch, side * patch)


def guided(forward, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor, null: int, scale: float, channels: int) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """Classifier-free guidance ``u + scale * (c - u)`` on the first ``channels`` outputs; the rest (variance) is that of the conditional half.

    One forward pass of twice the batch; none when ``scale`` is 1.
    """
    if scale == 1.0:
        return forward(x, t, labels)
    both = forward(torch.cat([x, x]), torch.cat([t, t]), torch.cat([labels, torch.full_like(labels, null)]))
    conditional, unconditional = both.chunk(2)
    eps = unconditional[:, :channels] + scale * (conditional[:, :channels] - unconditional[:, :channels])
    return torch.cat([eps, conditional[:, channels:]], dim=1) if both.shape[1] > channels else eps
