"""Encoder, decoder and the autoencoder as plain ``torch.nn.Module`` (paper section 3.2, residual autoencoding)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from zoo_dc_ae.attention import EfficientViTBlock
from zoo_dc_ae.config import AutoencoderConfig, CoderConfig
from zoo_dc_ae.layers import Activation, Downsample, ResBlock, RMSNorm2d, Upsample, channel_average, channel_repeat

Taps = dict[str, torch.Tensor]


class Encoder(nn.Module):
    """Pictures [B, 3, H, W] to raw latents [B, latent_channels, H/ratio, W/ratio]; deterministic.

    ``stages[s]`` holds the blocks of stage ``s`` and, last, its down-sampling block.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        coder = config.encoder
        self.gradient_checkpointing = config.gradient_checkpointing
        if coder.depths[0] > 0:
            self.conv_in: nn.Module = nn.Conv2d(config.in_channels, coder.widths[0], 3, padding=1)
        else:
            self.conv_in = Downsample(config.in_channels, coder.widths[1], coder.resample, shortcut=False)
        self.stages = nn.ModuleList()
        for stage, depth in enumerate(coder.depths):
            blocks = [_block(coder, stage, config.head_dim) for _ in range(depth)]
            if depth and stage < len(coder.depths) - 1:
                blocks.append(Downsample(coder.widths[stage], coder.widths[stage + 1], coder.resample))
            self.stages.append(nn.Sequential(*blocks))
        self.conv_out = nn.Conv2d(coder.widths[-1], config.latent_channels, 3, padding=1)
        self.group = coder.widths[-1] // config.latent_channels if coder.latent_shortcut else 0

    def forward(self, images: torch.Tensor, taps: Taps | None = None) -> torch.Tensor:
        """``taps``, when given, receives the output of every stage as ``enc_stage{s}``."""
        x = self.conv_in(images)
        for stage, blocks in enumerate(self.stages):
            for block in blocks:
                x = _run(block, x, self.gradient_checkpointing)
            if taps is not None and len(blocks):
                taps[f"enc_stage{stage}"] = x
        latents = self.conv_out(x)
        return latents + channel_average(x, self.group) if self.group else latents


class Decoder(nn.Module):
    """Raw latents to pictures, not clamped.

    ``stages`` are stored from full resolution to the latent, as in the checkpoints, and run in the opposite order; the up-sampling block comes first in each.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        coder = config.decoder
        self.gradient_checkpointing = config.gradient_checkpointing
        self.conv_in = nn.Conv2d(config.latent_channels, coder.widths[-1], 3, padding=1)
        self.repeats = coder.widths[-1] // config.latent_channels if coder.latent_shortcut else 0
        self.stages = nn.ModuleList()
        for stage, depth in enumerate(coder.depths):
            blocks: list[nn.Module] = []
            if depth and stage < len(coder.depths) - 1:
                blocks.append(Upsample(coder.widths[stage + 1], coder.widths[stage], coder.resample))
            blocks += [_block(coder, stage, config.head_dim) for _ in range(depth)]
            self.stages.append(nn.Sequential(*blocks))
        width = coder.widths[0] if coder.depths[0] > 0 else coder.widths[1]
        self.norm_out = RMSNorm2d(width)
        self.act_out = Activation(coder.output_activation)
        if coder.depths[0] > 0:
            self.conv_out: nn.Module = nn.Conv2d(width, config.in_channels, 3, padding=1)
        else:
            self.conv_out = Upsample(width, config.in_channels, coder.resample, shortcut=False)

    def forward(self, latents: torch.Tensor, taps: Taps | None = None) -> torch.Tensor:
        """``taps``, when given, receives the output of every stage as ``dec_stage{s}``."""
        x = self.conv_in(latents)
        if self.repeats:
            x = x + channel_repeat(latents, self.repeats)
        for stage in reversed(range(len(self.stages))):
            blocks = self.stages[stage]
            for block in blocks:  # type: ignore[attr-defined]
                x = _run(block, x, self.gradient_checkpointing)
            if taps is not None and len(blocks):  # type: ignore[arg-type]
                taps[f"dec_stage{stage}"] = x
        x = x if taps is None else x.clone()  # the norm may overwrite its argument
        return self.conv_out(self.act_out(self.norm_out(x)))


class DCAE(nn.Module):
    """Deep Compression Autoencoder (arXiv 2410.10733).

    Pictures are [B, in_channels, H, W] in [-1, 1] with sides that are multiples of ``ratio``; latents are raw (not multiplied by ``scaling_factor``).

    >>> from zoo_dc_ae.config import AutoencoderConfig, CoderConfig
    >>> half = dict(widths=[8, 32], depths=[1, 1], blocks=["res", "vit"], scales=[[], []], norms=["rms_norm"] * 2, activations=["silu"] * 2)
    >>> config = AutoencoderConfig(latent_channels=4, encoder=CoderConfig(**half), decoder=CoderConfig(**half, resample="interpolate"))
    >>> DCAE(config).encode(torch.zeros(1, 3, 16, 24)).shape
    torch.Size([1, 4, 8, 12])
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config.check()
        self.ratio = config.ratio
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, images: torch.Tensor, taps: Taps | None = None) -> torch.Tensor:
        """[B, 3, H, W] -> [B, latent_channels, H/ratio, W/ratio]."""
        return self.encoder(images, taps)

    def decode(self, latents: torch.Tensor, taps: Taps | None = None) -> torch.Tensor:
        """[B, latent_channels, h, w] -> [B, 3, h*ratio, w*ratio]."""
        return self.decoder(latents, taps)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Reconstruction of ``images``."""
        return self.decode(self.encode(images))

    def enable_gradient_checkpointing(self, enabled: bool = True) -> None:
        """Recompute blocks in the backward pass: less memory, about a third more time."""
        self.encoder.gradient_checkpointing = self.decoder.gradient_checkpointing = enabled

    def middle_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters next to the latent (encoder head, decoder input): what the high-resolution latent adaptation of the paper tunes."""
        last = len(self.decoder.stages) - 1
        prefixes = ("encoder.conv_out.", f"encoder.stages.{last}.", "decoder.conv_in.", f"decoder.stages.{last}.")
        return ((name, value) for name, value in self.named_parameters() if name.startswith(prefixes))

    def head_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters of the decoder's head (full-resolution stage and output): what the local refinement of the paper tunes."""
        first = 0 if self.config.decoder.depths[0] > 0 else 1
        prefixes = (f"decoder.stages.{first}.", "decoder.norm_out.", "decoder.conv_out.")
        return ((name, value) for name, value in self.named_parameters() if name.startswith(prefixes))


def _block(coder: CoderConfig, stage: int, head_dim: int) -> nn.Module:
    if coder.blocks[stage] == "res":
        return ResBlock(coder.widths[stage], coder.norms[stage], coder.activations[stage])
    return EfficientViTBlock(coder.widths[stage], head_dim, coder.scales[stage], coder.norms[stage])


def _run(block: nn.Module, x: torch.Tensor, recompute: bool) -> torch.Tensor:
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, x, use_reentrant=False)
    return block(x)
