"""The linear diffusion transformer of Sana (arXiv 2410.10629), SANA-1.5 and SANA-Sprint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zoo_core.errors import InputError
from zoo_sana.config import TransformerConfig
from zoo_sana.layers import MASK_BIAS, Block, RMSNorm


def sinusoid(times: Tensor, width: int = 256) -> Tensor:
    """Time features [B] -> [B, width]: cosines first, frequencies exp(-ln(10000) i / (width / 2)); fp32."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=times.device) / half)
    angles = times.float()[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def sincos_grid(height: int, width: int, channels: int, base: int, scale: float, device: Any = None) -> Tensor:
    """Fixed position table [1, height * width, channels], fp32 from float64: half of the channels for x, half for y, each sines then cosines.

    The coordinate of token j along an axis of n tokens is ``j / (n / base) / scale``: the grid is always stretched onto the trained extent.
    """
    quarter = channels // 4
    omega = 1.0 / 10000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)

    def axis(count: int) -> Tensor:
        angles = (torch.arange(count, dtype=torch.float64) / (count / base) / scale)[:, None] * omega
        return torch.cat((angles.sin(), angles.cos()), dim=1)

    x = axis(width)[None].expand(height, -1, -1)
    y = axis(height)[:, None].expand(-1, width, -1)
    return torch.cat((x, y), dim=-1).flatten(0, 1)[None].to(device=device, dtype=torch.float32)


class TwoLinears(nn.Module):
    """Linear, activation, linear."""

    def __init__(self, inputs: int, width: int, activation: str) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, width)
        self.linear_2 = nn.Linear(width, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.linear_1(x)
        return self.linear_2(F.silu(hidden) if self.activation == "silu" else F.gelu(hidden, approximate="tanh"))


@dataclass
class Caption:
    """A prompt batch ready for every step: per-block keys and values, and the score bias of padded positions."""

    memory: list[tuple[Tensor, Tensor]]
    bias: Tensor | None
    projected: Tensor | None = None


class SanaTransformer(nn.Module):
    """Velocity network.

    Args:
        config: Shapes.

    Example:
        >>> import torch
        >>> from zoo_sana.config import TransformerConfig
        >>> net = SanaTransformer(TransformerConfig(in_channels=4, out_channels=4, heads=2, head_dim=16, cross_heads=2, layers=1, caption_channels=8))
        >>> net(torch.randn(1, 4, 3, 5), torch.randn(1, 6, 8), torch.tensor([500.0])).shape
        torch.Size([1, 4, 3, 5])
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config.check()
        width = config.width
        self.patch_embed = nn.Conv2d(config.in_channels, width, config.patch_size, stride=config.patch_size)
        self.time_mlp = TwoLinears(256, width, "silu")
        self.guidance_mlp = TwoLinears(256, width, "silu") if config.guidance_embed else None
        self.modulation = nn.Linear(width, 6 * width)
        self.caption_mlp = TwoLinears(config.caption_channels, width, "gelu")
        self.caption_norm = RMSNorm(width, config.caption_norm_eps)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.out_table = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.out = nn.Linear(width, config.patch_size**2 * config.out_channels)
        self._positions: tuple[tuple[int, int, Any, Any], Tensor] | None = None

    # -- parts ---------------------------------------------------------------------------------------------------------------

    def caption(self, embeddings: Tensor, mask: Tensor | None = None, *, keep: bool = False) -> Caption:
        """Text features [B, L, caption_channels] and mask [B, L] (1 = text) -> what every step needs; do this once per prompt."""
        projected = self.caption_norm(self.caption_mlp(embeddings.to(self.dtype)))
        bias = None
        if mask is not None:
            bias = ((1 - mask.to(self.dtype)) * MASK_BIAS)[:, None, None, :]
        return Caption([block.cross.memory(projected) for block in self.blocks], bias, projected if keep else None)  # type: ignore[union-attr]

    def time(self, times: Tensor, guidance: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(embedding [B, C], modulation [B, 6C]) of times [B]; ``guidance`` [B] already scaled, for guidance-embedding models."""
        embedding = self.time_mlp(sinusoid(times).to(self.dtype))
        if self.guidance_mlp is not None:
            if guidance is None:
                raise InputError("this transformer takes the guidance scale as an input", fix="guidance=torch.tensor([0.45])")
            embedding = embedding + self.guidance_mlp(sinusoid(guidance).to(self.dtype))
        return embedding, self.modulation(F.silu(embedding))

    def tokens(self, latents: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Latents [B, c, h, w] -> tokens [B, N, C] (with the position table where the model has one) and the map's size."""
        patch = self.config.patch_size
        if latents.ndim != 4 or latents.shape[1] != self.config.in_channels:
            raise InputError(
                f"latents of shape {tuple(latents.shape)}: expected [batch, {self.config.in_channels}, height, width]", fix="check the autoencoder"
            )
        if latents.shape[-1] % patch or latents.shape[-2] % patch:
            raise InputError(f"latent map {tuple(latents.shape[-2:])} is not a multiple of the patch size {patch}", fix=f"sides that are multiples of {patch}")
        maps = self.patch_embed(latents.to(self.dtype))
        size = (maps.shape[-2], maps.shape[-1])
        tokens = maps.flatten(2).transpose(1, 2)
        if self.config.position_scale is not None:
            tokens = (tokens + self._position_table(size, tokens)).to(tokens.dtype)
        return tokens, size

    def _position_table(self, size: tuple[int, int], like: Tensor) -> Tensor:
        key = (*size, like.device, like.dtype)
        if self._positions is None or self._positions[0] != key:
            assert self.config.position_scale is not None
            base = self.config.sample_size // self.config.patch_size
            table = sincos_grid(*size, self.config.width, base, self.config.position_scale, like.device)
            self._positions = (key, table.to(like.dtype))
        return self._positions[1]

    @property
    def dtype(self) -> torch.dtype:
        return self.out_table.dtype

    # -- the whole -----------------------------------------------------------------------------------------------------------

    def forward(
        self,
        latents: Tensor,
        caption: Tensor | Caption,
        times: Tensor,
        mask: Tensor | None = None,
        *,
        guidance: Tensor | None = None,
        perturbed: int = 0,
        perturbed_blocks: Sequence[int] = (),
        control: Sequence[Tensor] | None = None,
        taps: dict[str, Any] | None = None,
    ) -> Tensor:
        """Velocity [B, out_channels, h, w] (same dtype as the weights).

        Args:
            latents: [B, in_channels, h, w] in the diffusion scale.
            caption: Text features [B, L, caption_channels], or a prepared :class:`Caption`.
            times: [B] or [1] (one time for the whole batch is computed once).
            mask: [B, L], 1 = text; only with unprepared features.
            guidance: [B] or [1], scaled, for guidance-embedding models.
            perturbed: The last so many rows use the value path only in ``perturbed_blocks``.
            control: Residuals [B, N, C] of a ControlNet; number i is added after block i + 1.
            taps: Filled with intermediate values when given.
        """
        prepared = caption if isinstance(caption, Caption) else self.caption(caption, mask, keep=taps is not None)
        x, size = self.tokens(latents)
        embedding, modulation = self.time(times, guidance)
        if taps is not None:
            taps.update(patch_embed=x, caption=prepared.projected, time_embedding=embedding, time_modulation=modulation)
        tables = torch.stack([block.table for block in self.blocks])  # type: ignore[misc]
        everything = tables[:, None] + modulation.unflatten(1, (6, -1))[None]  # [layers, B or 1, 6, C], one addition for all blocks
        one = everything.new_tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0])[:, None]
        everything = everything + one
        recompute = self.config.gradient_checkpointing and torch.is_grad_enabled()
        for i, block in enumerate(self.blocks):
            row = perturbed if i in perturbed_blocks else 0
            inner: dict[str, Any] | None = {} if taps is not None and i == 0 else None
            arguments = (x, everything[i], prepared.memory[i], prepared.bias, size, row, inner)
            x = checkpoint(block, *arguments, use_reentrant=False) if recompute else block(*arguments)
            if control is not None and 0 < i <= len(control):
                x = x + control[i - 1]
            if taps is not None:
                taps[f"block{i}"] = x
                taps.update({f"block0.{key}": value for key, value in (inner or {}).items()})
        shift, scale = (part[:, None] for part in (self.out_table[None] + embedding[:, None]).unbind(1))
        x = torch.addcmul(shift, F.layer_norm(x, (self.config.width,), eps=self.config.norm_eps), 1 + scale)
        return self._unpatch(self.out(x), size)

    def _unpatch(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        p, c = self.config.patch_size, self.config.out_channels
        maps = tokens.unflatten(2, (p, p, c)).unflatten(1, size)
        return maps.permute(0, 5, 1, 3, 2, 4).reshape(tokens.shape[0], c, size[0] * p, size[1] * p)

    def reset_parameters(self) -> None:
        """Initialisation for training from scratch (fact sheet section 3, end)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patch_embed.weight.flatten(1))
        for module in (self.time_mlp.linear_1, self.time_mlp.linear_2, self.modulation, self.caption_mlp.linear_1, self.caption_mlp.linear_2):
            nn.init.normal_(module.weight, std=0.02)
        nn.init.constant_(self.caption_norm.weight, 0.01)
        if self.guidance_mlp is not None:
            nn.init.zeros_(self.guidance_mlp.linear_2.weight)
            nn.init.zeros_(self.guidance_mlp.linear_2.bias)
