"""Building blocks without attention: norms, residual block, down- and up-sampling with parameter-free shortcuts.

Tensors are [batch, channels, height, width]; any memory format works, channels-last is the fast one on most machines.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from zoo_kernels.registry import registry

from zoo_core.errors import ConfigError
from zoo_dc_ae import cpu

_ACTIVATIONS = {"silu": F.silu, "relu": F.relu, "relu6": F.relu6, "gelu": F.gelu, "mish": F.mish}
_IN_PLACE = {"silu", "relu", "relu6", "mish"}


class Activation(nn.Module):
    """An activation by name; overwrites its argument when no gradient is recorded (the argument is always a fresh convolution output here)."""

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in _ACTIVATIONS:
            raise ConfigError(f"activation {name!r} is unknown", fix=f"choose from {', '.join(_ACTIVATIONS)}")
        self.name = name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.name in _IN_PLACE and not torch.is_grad_enabled():
            return _ACTIVATIONS[self.name](x, inplace=True)
        return _ACTIVATIONS[self.name](x)

    def extra_repr(self) -> str:
        return self.name


class RMSNorm2d(nn.Module):
    """``x / sqrt(mean_c(x^2) + eps) * weight_c + bias_c`` over the channels of each pixel, computed in float32.

    Unlike ``torch.nn.RMSNorm`` it has a bias (``trms2d`` in the reference code).  Without gradients it is the op ``rms_norm_2d`` of zoo_kernels:
    ``core`` on devices of the type ``core_device``, an implementation for CPUs until zoo_dc_ae.binding chooses one; everywhere else the formula below.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.core: Callable[..., torch.Tensor] = registry.implementation("rms_norm_2d", "cpu").load()
        self.core_device = "cpu"

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """[B, C, H, W] in any floating dtype; the result has the same dtype.  ``residual`` is added to the result.

        ``x`` may be overwritten (it is a fresh convolution output everywhere in this package).
        """
        if x.device.type == self.core_device and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return self.core(x, self.weight, self.bias, self.eps, residual, True)
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(1, keepdim=True) + self.eps)
        y = torch.addcmul(self.bias.float()[:, None, None], y, self.weight.float()[:, None, None]).to(x.dtype)
        return y if residual is None else y + residual


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm with the same call as :class:`RMSNorm2d`."""

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        y = super().forward(x)
        if residual is None:
            return y
        return y + residual if torch.is_grad_enabled() else y.add_(residual)


class PointwiseConv(nn.Conv2d):
    """1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cpu.pointwise(x, self.weight, self.bias) if cpu.usable(x) else super().forward(x)


def make_norm(kind: str, channels: int) -> nn.Module:
    """``"rms_norm"`` or ``"batch_norm"`` (eps 1e-5 both)."""
    if kind == "rms_norm":
        return RMSNorm2d(channels)
    if kind == "batch_norm":
        return BatchNorm2d(channels, eps=1e-5)
    raise ConfigError(f"norm {kind!r} is unknown", fix="choose 'rms_norm' or 'batch_norm'")


class ResBlock(nn.Module):
    """``x + norm(conv(act(conv(x))))``: the norm closes the branch, nothing follows the sum."""

    def __init__(self, channels: int, norm: str = "rms_norm", activation: str = "silu") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = Activation(activation)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = make_norm(norm, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv2(self.act(self.conv1(x))), x)


class Downsample(nn.Module):
    """Half the resolution, ``in_channels`` to ``out_channels``.

    Main path: 3x3 convolution of stride 2, or a 3x3 convolution to ``out_channels / 4`` followed by pixel-unshuffle.  Shortcut: pixel-unshuffle, then
    the mean of consecutive groups of channels.
    """

    def __init__(self, in_channels: int, out_channels: int, kind: str, shortcut: bool = True) -> None:
        super().__init__()
        self.unshuffle = kind == "pixel_unshuffle"
        self.shortcut = shortcut
        self.group = 4 * in_channels // out_channels
        if self.unshuffle and out_channels % 4:
            raise ConfigError(f"down-sampling by pixel-unshuffle to {out_channels} channels", fix="choose a number of channels divisible by 4")
        if shortcut and (4 * in_channels) % out_channels:
            raise ConfigError(f"down-sampling {in_channels} -> {out_channels} channels", fix="4 * in_channels must be a multiple of out_channels")
        self.conv = nn.Conv2d(in_channels, out_channels // 4 if self.unshuffle else out_channels, 3, stride=1 if self.unshuffle else 2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        if self.unshuffle:
            y = F.pixel_unshuffle(y, 2)
        if not self.shortcut:
            return y
        if self.group in (2, 4) and cpu.usable(x):
            return cpu.average_add_(y, x, self.group)
        return y + average_shortcut(x, self.group)


class Upsample(nn.Module):
    """Twice the resolution, ``in_channels`` to ``out_channels``.

    Main path: nearest-neighbour and a 3x3 convolution, or a 3x3 convolution to ``4 * out_channels`` followed by pixel-shuffle.  Shortcut: every channel
    repeated in place (a a b b ...), then pixel-shuffle.
    """

    def __init__(self, in_channels: int, out_channels: int, kind: str, shortcut: bool = True) -> None:
        super().__init__()
        self.shuffle = kind == "pixel_shuffle"
        self.shortcut = shortcut
        self.repeats = 4 * out_channels // in_channels
        if shortcut and (4 * out_channels) % in_channels:
            raise ConfigError(f"up-sampling {in_channels} -> {out_channels} channels", fix="4 * out_channels must be a multiple of in_channels")
        self.conv = nn.Conv2d(in_channels, 4 * out_channels if self.shuffle else out_channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if cpu.usable(x) and x.shape[-2] * x.shape[-1] >= cpu.PIXELS:
            return cpu.upsample(x, self.conv.weight, self.conv.bias, self.shuffle, self.repeats if self.shortcut else 0)
        if self.shuffle:
            y = F.pixel_shuffle(self.conv(x), 2)
        else:
            y = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return y + duplicate_shortcut(x, self.repeats) if self.shortcut else y


def average_shortcut(x: torch.Tensor, group: int) -> torch.Tensor:
    """Pixel-unshuffle by 2, then the mean of consecutive groups: [B, C, H, W] -> [B, 4C/group, H/2, W/2]."""
    if group == 4:
        return F.avg_pool2d(x, 2)
    y = F.pixel_unshuffle(x, 2)
    return y if group == 1 else channel_average(y, group)


def duplicate_shortcut(x: torch.Tensor, repeats: int) -> torch.Tensor:
    """Every channel ``repeats`` times in place, then pixel-shuffle by 2: [B, C, H, W] -> [B, C * repeats / 4, 2H, 2W]."""
    if repeats == 4:
        return F.interpolate(x, scale_factor=2, mode="nearest")
    return F.pixel_shuffle(channel_repeat(x, repeats), 2)


def channel_average(x: torch.Tensor, group: int) -> torch.Tensor:
    """Mean of consecutive groups of ``group`` channels."""
    return x.unflatten(1, (-1, group)).mean(dim=2)


def channel_repeat(x: torch.Tensor, repeats: int) -> torch.Tensor:
    """Every channel ``repeats`` times, in place (a a b b ...)."""
    return x if repeats == 1 else x.repeat_interleave(repeats, dim=1, output_size=x.shape[1] * repeats)
