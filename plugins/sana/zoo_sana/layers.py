"""Parts of a block: linear self-attention, cross-attention, Mix-FFN (Sana, fact sheet section 3, steps 4 to 7).

Tokens are [B, N, C] throughout, which is also the channels-last form of the latent map, so 1x1 convolutions are matrix products and only the 3x3 depthwise
convolution sees a map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_sana.config import TransformerConfig

MASK_BIAS = -10000.0
"""Added to the scores of padded text positions (not minus infinity: a fully padded row attends uniformly)."""


def relu_linear_attention(q: Tensor, k: Tensor, v: Tensor, eps: float = 1e-15) -> Tensor:
    """ReLU linear attention [B, N, H, d] -> [B, N, H, d] with an fp32 core; rows without any positive feature give 0.

    out = (relu(q) S) / (relu(q) . z + eps) with S = sum_n relu(k_n) v_n^T and z = sum_n relu(k_n).
    """
    dtype = q.dtype
    q, k, v = (t.transpose(1, 2).float() for t in (q, k, v))
    q, k = F.relu(q), F.relu(k)
    state = k.transpose(-1, -2) @ v
    norm = q @ k.sum(-2, keepdim=True).transpose(-1, -2)
    return ((q @ state) / (norm + eps)).transpose(1, 2).to(dtype)


class RMSNorm(nn.Module):
    """RMS norm over the last axis with a weight, fp32 inside."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * self.weight.float()).to(x.dtype)


class LinearAttention(nn.Module):
    """Self-attention of step 5.  ``attend`` is the bound kernel."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.eps = config.heads, config.attention_eps
        self.qkv = nn.Linear(width, 3 * width, bias=config.attention_bias)
        self.q_norm = RMSNorm(width, config.self_norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(width, config.self_norm_eps) if config.qk_norm else None
        self.out = nn.Linear(width, width)
        self.attend: Callable[..., Tensor] = relu_linear_attention

    def forward(self, x: Tensor, perturbed: int = 0) -> Tensor:
        """[B, N, C]; the last ``perturbed`` rows of the batch keep only their value path (perturbed-attention guidance)."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if perturbed:
            clean = x.shape[0] - perturbed
            attended = self._attend(q[:clean], k[:clean], v[:clean])
            mixed = torch.cat((attended, v[clean:]))
        else:
            mixed = self._attend(q, k, v)
        out = self.out(mixed)
        return out.clip(-65504, 65504) if out.dtype == torch.float16 else out

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (t.unflatten(-1, (self.heads, -1)) for t in (q, k, v))
        return self.attend(q, k, v, eps=self.eps).flatten(2)


class CrossAttention(nn.Module):
    """Softmax attention on the caption (step 6); keys and values can be computed once per prompt."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.cross_heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.q_norm = RMSNorm(width, config.cross_norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(width, config.cross_norm_eps) if config.qk_norm else None
        self.out = nn.Linear(width, width)

    def memory(self, caption: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, heads, L, d] of a projected caption [B, L, C]."""
        k, v = self.kv(caption).chunk(2, dim=-1)
        if self.k_norm is not None:
            k = self.k_norm(k)
        return tuple(t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (k, v))  # type: ignore[return-value]

    def forward(self, x: Tensor, memory: tuple[Tensor, Tensor], bias: Tensor | None) -> Tensor:
        """[B, N, C]; ``bias`` [B, 1, 1, L] is added to the scores."""
        q = self.q(x)
        if self.q_norm is not None:
            q = self.q_norm(q)
        q = q.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        out = F.scaled_dot_product_attention(q, *memory, attn_mask=bias)
        return self.out(out.transpose(1, 2).flatten(2))


class MixFFN(nn.Module):
    """Gated convolutional feed-forward layer (step 7): 1x1, SiLU, depthwise 3x3, value * SiLU(gate), 1x1."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.hidden
        self.inverted = nn.Linear(width, 2 * hidden)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.point = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """[B, N, C] of a map with ``size`` (height, width), N = height * width, row by row."""
        over = not torch.is_grad_enabled()  # write over our own intermediate results: memory traffic is most of what is left beside the products
        hidden = F.silu(self.inverted(x), inplace=over)
        maps = hidden.unflatten(1, size).permute(0, 3, 1, 2)  # a channels-last view: nothing moves
        value, gate = self.depthwise(maps).permute(0, 2, 3, 1).flatten(1, 2).chunk(2, dim=-1)
        gate = F.silu(gate, inplace=over)
        return self.point(value.mul_(gate) if over else value * gate)


class Block(nn.Module):
    """One block (step 4)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.width, self.eps = config.width, config.norm_eps
        self.table = nn.Parameter(torch.randn(6, config.width) / config.width**0.5)
        self.attn = LinearAttention(config)
        self.cross = CrossAttention(config)
        self.ffn = MixFFN(config)

    def _modulate(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        normed = F.layer_norm(x, (self.width,), eps=self.eps)
        return torch.addcmul(shift, normed, scale) if torch.is_grad_enabled() else torch.addcmul(shift, normed, scale, out=normed)

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        memory: tuple[Tensor, Tensor],
        bias: Tensor | None,
        size: tuple[int, int],
        perturbed: int = 0,
        taps: dict[str, Any] | None = None,
    ) -> Tensor:
        """``modulation`` [1 or B, 6, C] is table + time part with 1 added to both scales."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (part.unsqueeze(1) for part in modulation.unbind(1))
        attended = self.attn(self._modulate(x, shift1, scale1), perturbed)
        x = torch.addcmul(x, gate1, attended)
        crossed = self.cross(x, memory, bias)
        x = x + crossed
        mixed = self.ffn(self._modulate(x, shift2, scale2), size)
        if taps is not None:
            taps.update(attn1=attended, attn2=crossed, ff=mixed.transpose(1, 2).unflatten(2, size))
        return torch.addcmul(x, gate2, mixed)
