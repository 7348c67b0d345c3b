"""The transform as a convolution with stride = kernel, and its adjoint."""

from __future__ import annotations

import math

import torch
from torch import nn

from zoo_dct_codec.config import CodecConfig


def cosines(size: int) -> torch.Tensor:
    """Orthonormal type-II cosine transform, [frequency, position] (Ahmed, Natarajan, Rao 1974).

    >>> matrix = cosines(8)
    >>> torch.allclose(matrix @ matrix.T, torch.eye(8), atol=1e-6)
    True
    """
    position = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * (position[None] + 0.5) * position[:, None]) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix.float()


def zigzag(size: int) -> list[tuple[int, int]]:
    """(row, column) frequencies of a block from low to high, along the antidiagonals."""
    return sorted(((u, v) for u in range(size) for v in range(size)), key=lambda uv: (uv[0] + uv[1], uv[0] if (uv[0] + uv[1]) % 2 else uv[1]))


def basis(config: CodecConfig) -> torch.Tensor:
    """Kept basis pictures [latent_channels, 3, block, block]; rows are orthonormal.

    Colour is the three-point cosine transform of (R, G, B): brightness, red against blue, green against the rest.
    """
    pixels, colours = cosines(config.block), cosines(3)
    rows = []
    for channel, kept in enumerate((config.luma, config.chroma, config.chroma)):
        for u, v in zigzag(config.block)[:kept]:
            rows.append(torch.einsum("c,h,w->chw", colours[channel], pixels[u], pixels[v]))
    return torch.stack(rows)


class BlockTransform(nn.Module):
    """One weight serves both directions, because the kept rows are orthonormal."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.block = config.block
        self.scale = 1 / config.block
        self.weight = nn.Parameter(torch.empty(config.latent_channels, 3, config.block, config.block), requires_grad=False)

    def fill(self, config: CodecConfig) -> BlockTransform:
        """Write the formula's values."""
        self.weight.copy_(basis(config))
        return self

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] -> [B, latent_channels, H/block, W/block]; divided by ``block``, so that a flat picture has latents of its own size."""
        return nn.functional.conv2d(images, self.weight * self.scale, stride=self.block)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The adjoint of :meth:`encode`, scaled back: the best picture that these coefficients allow."""
        return nn.functional.conv_transpose2d(latents, self.weight / self.scale, stride=self.block)
