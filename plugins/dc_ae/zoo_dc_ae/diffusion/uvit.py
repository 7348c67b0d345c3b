"""U-ViT (arXiv 2209.12152): label, time and patches are all tokens; long skip connections from in-blocks to out-blocks."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from zoo_dc_ae.diffusion.config import DiffusionConfig
from zoo_dc_ae.diffusion.layers import MLP, Attention, LabelEmbedding, PatchEmbedding, timestep_embedding, unpatchify


class Block(nn.Module):
    """Pre-norm transformer block; out-blocks first merge the skip connection through ``skip_linear``."""

    def __init__(self, config: DiffusionConfig, skip: bool = False) -> None:
        super().__init__()
        size = config.hidden_size
        self.norm1 = nn.LayerNorm(size)
        self.attn = Attention(size, config.num_heads, config.qkv_bias, full_precision=True)
        self.norm2 = nn.LayerNorm(size)
        self.mlp = MLP(size, int(size * config.mlp_ratio), config.activation)
        self.skip_linear = nn.Linear(2 * size, size) if skip else None

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None = None) -> torch.Tensor:
        if self.skip_linear is not None:
            assert skip is not None
            x = self.skip_linear(torch.cat([x, skip], dim=-1))
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class UViT(nn.Module):
    """Noise (or velocity) of a noisy latent.

    The time is whatever the sampler gives: 1..1000 for the noise-prediction models, 0..1 for USiT.
    """

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config.check()
        size = config.hidden_size
        self.patch_embed = PatchEmbedding(config.in_channels, size, config.patch_size)
        self.time_embed: nn.Module = nn.Identity()
        if config.mlp_time_embed:
            self.time_embed = nn.Sequential(nn.Linear(size, 4 * size), nn.SiLU(), nn.Linear(4 * size, size))
        self.label_emb = LabelEmbedding(config.num_classes, size, config.class_dropout_prob) if config.num_classes > 0 else None
        self.extras = 2 if self.label_emb is not None else 1
        self.pos_embed = nn.Parameter(torch.zeros(1, self.extras + config.tokens, size))
        self.in_blocks = nn.ModuleList(Block(config) for _ in range(config.depth // 2))
        self.mid_block = Block(config)
        self.out_blocks = nn.ModuleList(Block(config, skip=True) for _ in range(config.depth // 2))
        self.norm = nn.LayerNorm(size)
        self.decoder_pred = nn.Linear(size, config.patch_size**2 * config.in_channels)
        self.out_channels = config.in_channels
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Truncated normal of deviation 0.02, zero biases (as in the reference)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """``x`` [B, C, n, n], ``t`` [B] float, ``labels`` [B] int64 (``num_classes`` = none) -> [B, C, n, n]."""
        tokens = self.patch_embed(x)
        time = self.time_embed(timestep_embedding(t, self.config.hidden_size).to(tokens.dtype))
        parts = [time[:, None], tokens]
        if self.label_emb is not None:
            parts.insert(0, self.label_emb(labels)[:, None])
        h = torch.cat(parts, dim=1) + self.pos_embed
        skips = []
        for block in self.in_blocks:
            h = self._run(block, h)
            skips.append(h)
        h = self._run(self.mid_block, h)
        for block in self.out_blocks:
            h = self._run(block, h, skips.pop())
        h = self.decoder_pred(self.norm(h[:, self.extras :]))
        return unpatchify(h, self.out_channels, self.config.patch_size)

    def _run(self, block: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
        if self.config.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)
