"""Tiles without any seam: only the convolutional stages are tiled, with a margin as wide as what they can see.

The attention of the deep stages needs the whole picture, but works on few pixels; the costly stages at high resolution are residual blocks, which see
a neighbourhood of known radius.  Running the deep stages whole and the others in tiles with that margin gives the untiled result (up to rounding) in a
fraction of its memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from zoo_dc_ae.autoencoder import Decoder, Encoder
from zoo_dc_ae.config import CoderConfig
from zoo_dc_ae.layers import channel_average, channel_repeat


def local_stages(coder: CoderConfig) -> int:
    """Number of stages, from full resolution on, that have no attention (the deepest stage always runs whole)."""
    last = len(coder.blocks) - 1
    return next((stage for stage, block in enumerate(coder.blocks) if block == "vit"), last)


def decoder_margin(coder: CoderConfig) -> int:
    """Pixels of the tiled part's input that one output pixel can see beyond its own place."""
    radius, scale = 0.0, 1.0
    for stage in reversed(range(local_stages(coder))):
        if coder.depths[stage]:
            radius += scale  # the up-sampling convolution, at the coarser resolution
            scale /= 2
            radius += 2 * coder.depths[stage] * scale
    return math.ceil(radius + scale)


def encoder_margin(coder: CoderConfig) -> int:
    """The same for the encoder in picture pixels, rounded up to a whole pixel of the tiled part's output."""
    unit = 2 ** local_stages(coder)
    radius, scale = 1, 1 if coder.depths[0] else 2
    for stage in range(local_stages(coder)):
        if coder.depths[stage]:
            radius += (2 * coder.depths[stage] + 1) * scale
            scale *= 2
    return -(-radius // unit) * unit


def _in_tiles(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, tile: tuple[int, int], margin: int, up: int, down: int) -> torch.Tensor:
    """``function`` maps [.., h, w] to [.., h * up / down, ..]; tiles (multiples of ``down``) do not overlap but for the margin, which is cut off again."""
    height, width = x.shape[-2:]
    out: torch.Tensor | None = None
    for top in range(0, height, tile[0]):
        for left in range(0, width, tile[1]):
            bottom, right = min(top + tile[0], height), min(left + tile[1], width)
            first, start = max(0, top - margin), max(0, left - margin)
            piece = function(x[..., first : min(height, bottom + margin), start : min(width, right + margin)])
            if out is None:
                out = torch.empty(*piece.shape[:2], height * up // down, width * up // down, dtype=piece.dtype, device=piece.device)
            y0, y1, x0, x1 = (value * up // down for value in (top, bottom, left, right))
            skip_y, skip_x = (top - first) * up // down, (left - start) * up // down
            out[..., y0:y1, x0:x1] = piece[..., skip_y : skip_y + y1 - y0, skip_x : skip_x + x1 - x0]
    assert out is not None
    return out


def decode(decoder: Decoder, coder: CoderConfig, latents: torch.Tensor, tile: tuple[int, int]) -> torch.Tensor:
    """Untiled decode in bounded memory; ``tile`` in picture pixels."""
    border = local_stages(coder)
    x = decoder.conv_in(latents)
    if decoder.repeats:
        x = x + channel_repeat(latents, decoder.repeats)
    for stage in reversed(range(border, len(decoder.stages))):
        x = decoder.stages[stage](x)

    def tail(part: torch.Tensor) -> torch.Tensor:
        for stage in reversed(range(border)):
            part = decoder.stages[stage](part)
        part = part.clone() if border == 0 else part  # the norm may overwrite its argument
        return decoder.conv_out(decoder.act_out(decoder.norm_out(part)))

    unit = 2**border
    return _in_tiles(tail, x, (max(1, tile[0] // unit), max(1, tile[1] // unit)), decoder_margin(coder), unit, 1)


def encode(encoder: Encoder, coder: CoderConfig, images: torch.Tensor, tile: tuple[int, int]) -> torch.Tensor:
    """Untiled encode in bounded memory; ``tile`` in picture pixels."""
    border = local_stages(coder)
    unit = 2**border

    def front(part: torch.Tensor) -> torch.Tensor:
        part = encoder.conv_in(part)
        for stage in range(border):
            part = encoder.stages[stage](part)
        return part

    x = _in_tiles(front, images, (max(unit, tile[0] // unit * unit), max(unit, tile[1] // unit * unit)), encoder_margin(coder), 1, unit)
    for stage in range(border, len(encoder.stages)):
        x = encoder.stages[stage](x)
    latents = encoder.conv_out(x)
    return latents + channel_average(x, encoder.group) if encoder.group else latents
