"""EfficientViT block: multi-scale ReLU linear attention and a gated convolution, each residual (paper section 3; EfficientViT arXiv 2205.14756)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from zoo_kernels import ops

from zoo_dc_ae.layers import Activation, PointwiseConv, make_norm

EPS = 1e-15
"""Added to the denominator in float32; guards only against rows that are exactly zero."""


class Aggregation(nn.Module):
    """Extra scale of the attention: depthwise kxk, then a 1x1 convolution within each head's q, k or v (both without bias)."""

    def __init__(self, channels: int, head_dim: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, groups=channels // head_dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pointwise(self.depthwise(x))


class LinearAttention2d(nn.Module):
    """Global attention with ReLU as kernel function: cost linear in the number of pixels.

    ``qkv`` is interleaved per head (q0 k0 v0 q1 k1 v1 ...).  With at most ``head_dim`` pixels the quadratic form of the same formula is used, as in the
    reference.  The core runs in float32 whatever the dtype of the input.
    """

    def __init__(self, channels: int, head_dim: int = 32, scales: list[int] | tuple[int, ...] = (), norm: str = "rms_norm") -> None:
        super().__init__()
        self.head_dim = head_dim
        self.qkv = PointwiseConv(channels, 3 * channels, bias=False)
        self.aggregations = nn.ModuleList(Aggregation(3 * channels, head_dim, kernel) for kernel in scales)
        self.proj = PointwiseConv(channels * (1 + len(scales)), channels, bias=False)
        self.norm = make_norm(norm, channels)
        # the op ``linear_attention`` of zoo_kernels: its definition until zoo_dc_ae.binding chooses implementations for the device
        self.core: Callable[..., torch.Tensor] = ops.linear_attention.reference
        self.core_with_gradient: Callable[..., torch.Tensor] = ops.linear_attention.reference

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        qkv = self.qkv(x)
        if self.aggregations:
            qkv = torch.cat([qkv, *(aggregation(qkv) for aggregation in self.aggregations)], dim=1)
        return self.norm(self.proj(self.attend(qkv)), x)

    def attend(self, qkv: torch.Tensor) -> torch.Tensor:
        """[B, heads * 3 * d, H, W] -> [B, heads * d, H, W]."""
        batch, _, height, width = qkv.shape
        with torch.autocast(qkv.device.type, enabled=False):
            heads = qkv.permute(0, 2, 3, 1).reshape(batch, height * width, -1, 3 * self.head_dim)
            q, k, v = heads.split(self.head_dim, dim=-1)
            if height * width <= self.head_dim:
                out = quadratic_attention(q, k, v)
            else:
                core = self.core_with_gradient if torch.is_grad_enabled() else self.core
                out = core(q, k, v, eps=EPS)
        return out.to(qkv.dtype).reshape(batch, height, width, -1).permute(0, 3, 1, 2)


def quadratic_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The formula of the op ``linear_attention`` with explicit weights: ``a_ij = relu(q_i) . relu(k_j)`` over its row sum, times v; all [B, N, heads, d].

    For at most ``d`` pixels it is the cheaper form; in float32 like the other.
    """
    q, k, v = (part.float().transpose(1, 2) for part in (q, k, v))
    weights = torch.matmul(F.relu(q), F.relu(k).transpose(-1, -2))
    return torch.matmul(weights / (weights.sum(-1, keepdim=True) + EPS), v).transpose(1, 2)


class GatedConv(nn.Module):
    """Inverted bottleneck with a gate: 1x1 to 8C, SiLU, depthwise 3x3, value * SiLU(gate), 1x1 to C, RMS norm, plus the input."""

    def __init__(self, channels: int, expansion: int = 4) -> None:
        super().__init__()
        hidden = channels * expansion
        self.expand = PointwiseConv(channels, 2 * hidden)
        self.act = Activation("silu")
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.project = PointwiseConv(hidden, channels, bias=False)
        self.norm = make_norm("rms_norm", channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = self.depthwise(self.act(self.expand(x))).chunk(2, dim=1)
        gate = F.silu(gate, inplace=not torch.is_grad_enabled())
        return self.norm(self.project(value * gate), x)


class EfficientViTBlock(nn.Module):
    """Attention part, then gated-convolution part."""

    def __init__(self, channels: int, head_dim: int = 32, scales: list[int] | tuple[int, ...] = (), norm: str = "rms_norm") -> None:
        super().__init__()
        self.attn = LinearAttention2d(channels, head_dim, scales, norm)
        self.ffn = GatedConv(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.ffn(self.attn(x))
