"""Inference paths for CPUs: the same arithmetic with fewer multiplications and fewer passes over memory.

Used without gradients, outside ``torch.compile``, on the CPU; everywhere else the plain formulas run.  ``tests/test_dcae_cpu.py`` holds each against the
plain one.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

PIXELS = 1024
"""Smallest input (height * width) for :func:`upsample`: below it, rearranging the weights costs more than it saves."""


def usable(x: torch.Tensor) -> bool:
    """Whether these paths may run: CPU tensor, no gradient recorded, not being traced."""
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def pointwise(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """1x1 convolution through oneDNN also with a single thread (where ``conv2d`` takes a matrix product that is slower on many CPUs)."""
    if x.dtype == torch.float32 and torch.get_num_threads() == 1 and torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled:
        return torch.ops.aten.mkldnn_convolution(x, weight, bias, [0, 0], [1, 1], [1, 1], 1)
    return F.conv2d(x, weight, bias)


# -- up-sampling -------------------------------------------------------------------------------------------------------------


def phase_weights(weight: torch.Tensor) -> torch.Tensor:
    """Weights of the four 2x2 convolutions that equal "nearest-neighbour x2, then 3x3": [O, I, 3, 3] -> [4 * O, I, 2, 2].

    The two copies of a pixel share a tap, so that 16 multiplications replace 36.  Order: phase (row, column), then output channel.
    """

    def halves(w: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
        first, middle, last = w.unbind(dim)
        return torch.stack((first, middle + last), dim), torch.stack((first + middle, last), dim)

    return torch.cat([part for rows in halves(weight, 2) for part in halves(rows, 3)])


def upsample(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, shuffle: bool, repeats: int) -> torch.Tensor:
    """Both kinds of up-sampling block with their shortcut added while the four phases are put in place.

    Args:
        x: [B, C, H, W].
        weight: [O, C, 3, 3] (nearest x2 + convolution) or [4 * O, C, 3, 3] (``shuffle``: convolution + pixel-shuffle).
        repeats: Copies of each channel in the shortcut; 0 for none.
    """
    batch, _, height, width = x.shape
    x = x.contiguous(memory_format=torch.channels_last)
    if shuffle:
        outputs = weight.shape[0] // 4
        grouped = weight.unflatten(0, (outputs, 4)).transpose(0, 1).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        y = F.conv2d(x, grouped, bias.view(outputs, 4).t().flatten(), padding=1)
    else:
        outputs = weight.shape[0]
        y = F.conv2d(x, phase_weights(weight).contiguous(memory_format=torch.channels_last), bias.repeat(4), padding=1)
    source, fine = x.permute(0, 2, 3, 1), y.permute(0, 2, 3, 1)
    out = torch.empty(batch, 2 * height, 2 * width, outputs, dtype=y.dtype)
    for row in (0, 1):
        for column in (0, 1):
            phase = 2 * row + column
            piece = fine[..., phase * outputs : (phase + 1) * outputs]
            if not shuffle:
                piece = piece[:, row : row + height, column : column + width]
            place = out[:, row::2, column::2]
            if repeats:
                torch.add(piece, _shortcut(source, outputs, phase, repeats), out=place)
            else:
                place.copy_(piece)
    return out.permute(0, 3, 1, 2)


def _shortcut(source: torch.Tensor, outputs: int, phase: int, repeats: int) -> torch.Tensor:
    """Channels of [B, H, W, C] that repetition and pixel-shuffle bring to one phase."""
    if repeats == 4:
        return source
    if repeats in (1, 2):
        return source[..., phase // repeats :: 4 // repeats]
    return source[..., (4 * torch.arange(outputs) + phase) // repeats]


def average_add_(y: torch.Tensor, x: torch.Tensor, group: int) -> torch.Tensor:
    """Add the shortcut of the down-sampling block (pixel-unshuffle, then means of ``group`` channels) to ``y``, in place."""
    if group == 4:
        return y.add_(F.avg_pool2d(x, 2))
    if group == 2:
        pooled = F.avg_pool2d(x, (1, 2))
        batch, channels, height, width = pooled.shape
        halves = pooled.view(batch, channels, height // 2, 2, width) if pooled.is_contiguous() else pooled.unflatten(2, (height // 2, 2))
        y.unflatten(1, (channels, 2)).add_(halves.permute(0, 1, 3, 2, 4))
        return y
    raise ValueError(group)
