"""DiT (arXiv 2212.09748): patches as tokens, time and class through adaptive layer norm initialised at zero, learned variance."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from zoo_dc_ae.diffusion.config import DiffusionConfig
from zoo_dc_ae.diffusion.layers import MLP, Attention, LabelEmbedding, PatchEmbedding, timestep_embedding, unpatchify

FREQUENCIES = 256


def sincos_position(size: int, side: int) -> torch.Tensor:
    """Fixed position table [side*side, size]: first half encodes the column, second half the row; each sine first, then cosine.

    >>> sincos_position(8, 2).shape
    torch.Size([4, 8])
    """
    quarter = size // 4
    omega = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(side, dtype=torch.float64)[:, None] * omega
    one = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns = one[None, :].expand(side, side, -1)
    rows = one[:, None].expand(side, side, -1)
    return torch.cat([columns, rows], dim=-1).reshape(side * side, -1).float()


class TimestepEmbedder(nn.Module):
    """Sinusoid of 256 frequencies through a two-layer MLP."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, size), nn.SiLU(), nn.Linear(size, size))

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        return self.mlp(timestep_embedding(t, FREQUENCIES).to(self.mlp[0].weight.dtype))


class Block(nn.Module):
    """Transformer block modulated by the condition (shift, scale, gate for attention and MLP)."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.post_norm = config.post_norm
        self.norm1 = nn.LayerNorm(size, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(size, config.num_heads, qkv_bias=True, full_precision=False)
        self.norm2 = nn.LayerNorm(size, elementwise_affine=False, eps=1e-6)
        self.mlp = MLP(size, int(size * config.mlp_ratio), "gelu-tanh")
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(size, (4 if self.post_norm else 6) * size))

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        parts = self.adaLN_modulation(condition)[:, None]
        if self.post_norm:
            shift1, scale1, shift2, scale2 = parts.chunk(4, dim=-1)
            x = x + torch.addcmul(shift1, self.norm1(self.attn(x)), scale1)
            return x + torch.addcmul(shift2, self.norm2(self.mlp(x)), scale2)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts.chunk(6, dim=-1)
        x = torch.addcmul(x, gate1, self.attn(torch.addcmul(shift1, self.norm1(x), 1 + scale1)))
        return torch.addcmul(x, gate2, self.mlp(torch.addcmul(shift2, self.norm2(x), 1 + scale2)))


class FinalLayer(nn.Module):
    """Modulated norm and linear to the patch."""

    def __init__(self, config: DiffusionConfig, channels: int) -> None:
        super().__init__()
        size = config.hidden_size
        self.norm_final = nn.LayerNorm(size, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(size, config.patch_size**2 * channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(size, 2 * size))

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        shift, scale = self.adaLN_modulation(condition)[:, None].chunk(2, dim=-1)
        return self.linear(torch.addcmul(shift, self.norm_final(x), 1 + scale))


class DiT(nn.Module):
    """Noise and (with ``learn_sigma``) variance of a noisy latent."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config.check()
        self.out_channels = config.in_channels * (2 if config.learn_sigma else 1)
        self.x_embedder = PatchEmbedding(config.in_channels, config.hidden_size, config.patch_size)
        self.t_embedder = TimestepEmbedder(config.hidden_size)
        self.y_embedder = None if config.unconditional else LabelEmbedding(config.num_classes, config.hidden_size, config.class_dropout_prob)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, config.hidden_size), requires_grad=False)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final_layer = FinalLayer(config, self.out_channels)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Xavier weights, zero modulation and output (adaLN-zero), the fixed position table."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.flatten(1))
        nn.init.zeros_(self.x_embedder.proj.bias)
        if self.y_embedder is not None:
            nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        for layer in (self.t_embedder.mlp[0], self.t_embedder.mlp[2]):
            nn.init.normal_(layer.weight, std=0.02)
        for module in (*(block.adaLN_modulation[-1] for block in self.blocks), self.final_layer.adaLN_modulation[-1], self.final_layer.linear):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        side = self.config.input_size // self.config.patch_size
        if self.pos_embed.device.type != "meta":
            self.pos_embed.copy_(sincos_position(self.config.hidden_size, side)[None])

    def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """``x`` [B, C, n, n], ``t`` [B], ``labels`` [B] int64 (``num_classes`` = none) -> [B, C or 2C, n, n]."""
        h = self.x_embedder(x) + self.pos_embed
        condition = self.t_embedder(t)
        if self.y_embedder is not None:
            condition = condition + self.y_embedder(labels)
        for block in self.blocks:
            if self.config.gradient_checkpointing and torch.is_grad_enabled():
                h = checkpoint(block, h, condition, use_reentrant=False)
            else:
                h = block(h, condition)
        return unpatchify(self.final_layer(h, condition), self.out_channels, self.config.patch_size)
