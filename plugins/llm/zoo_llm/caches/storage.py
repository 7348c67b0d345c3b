"""Storage formats of a key-value cache: how one tensor [batch, heads, tokens, dim] is held.

Every format turns values into *parts* whose token axis is -2, so that buffers, rings and selections treat all formats alike.

* ``native``: the values themselves.
* ``int8``: per token and head, symmetric: code = round(x / s), s = max|x| / 127 (fp16 scale).
* ``int4``: per token, head and group of channels, asymmetric: z = min, s = (max - min) / 15 + 1e-8, code = round((x - z) / s) in 0..15, two codes per
  byte (even channel in the high nibble), scale and zero in fp16.  This is the 4-bit cache of the DuoAttention demonstration.

Example:
    >>> import torch
    >>> fmt = storage_format("int4")
    >>> parts = fmt.encode(torch.randn(1, 2, 5, 64))
    >>> [tuple(p.shape) for p in parts]
    [(1, 2, 5, 32), (1, 2, 5, 1), (1, 2, 5, 1)]
    >>> fmt.decode(parts, torch.float32).shape
    torch.Size([1, 2, 5, 64])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from zoo_core.errors import InputError


@dataclass(frozen=True)
class NativeStorage:
    """Values as they are, in the model's dtype."""

    name: str = "native"

    def encode(self, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (values,)

    def decode(self, parts: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        return parts[0].to(dtype)

    def bytes_per_token(self, dim: int, dtype: torch.dtype) -> float:
        return dim * dtype.itemsize


@dataclass(frozen=True)
class Int8Storage:
    """Symmetric 8-bit codes with one fp16 scale per token and head."""

    name: str = "int8"

    def encode(self, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = values.float()
        scale = (x.abs().amax(-1, keepdim=True) / 127).clamp_min(2**-24).to(torch.float16)
        codes = torch.round(x / scale.float()).clamp_(-127, 127).to(torch.int8)
        return codes, scale

    def decode(self, parts: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        codes, scale = parts
        return codes.to(dtype) * scale.to(dtype)

    def bytes_per_token(self, dim: int, dtype: torch.dtype) -> float:
        return dim + 2


def round_half_away(x: torch.Tensor) -> torch.Tensor:
    """Round to nearest, ties away from zero (what C's ``round`` does; ``torch.round`` rounds ties to even)."""
    return torch.where(x >= 0, torch.floor(x + 0.5), torch.ceil(x - 0.5))


@dataclass(frozen=True)
class Int4Storage:
    """Asymmetric 4-bit codes with fp16 scale and zero per token, head and group of channels.

    Attributes:
        group: Channels per group; 0 means the whole head (at most 128 are recommended).
    """

    name: str = "int4"
    group: int = 0

    def _group(self, dim: int) -> int:
        group = self.group or min(dim, 128)
        if dim % group or dim % 2:
            raise InputError(f"int4 cache: head size {dim} is not a multiple of the group {group} (or is odd)", fix="choose a group that divides the head size")
        return group

    def encode(self, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        dim = values.shape[-1]
        grouped = values.float().unflatten(-1, (-1, self._group(dim)))
        zero = grouped.amin(-1, keepdim=True)
        scale = (grouped.amax(-1, keepdim=True) - zero) / 15 + 1e-8
        codes = round_half_away((grouped - zero) / scale).clamp_(0, 15).to(torch.uint8).flatten(-2)
        packed = (codes[..., 0::2] << 4) | codes[..., 1::2]
        return packed, scale.squeeze(-1).to(torch.float16), zero.squeeze(-1).to(torch.float16)

    def decode(self, parts: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        packed, scale, zero = parts
        codes = torch.stack((packed >> 4, packed & 15), dim=-1).flatten(-2)
        grouped = codes.unflatten(-1, (scale.shape[-1], -1)).to(torch.float16)
        return (grouped * scale.unsqueeze(-1) + zero.unsqueeze(-1)).flatten(-2).to(dtype)

    def bytes_per_token(self, dim: int, dtype: torch.dtype) -> float:
        return dim / 2 + 4 * (dim // self._group(dim))


Storage = NativeStorage | Int8Storage | Int4Storage

FORMATS: dict[str, Storage] = {"native": NativeStorage(), "int8": Int8Storage(), "int4": Int4Storage(), "kv4": Int4Storage(), "kv8": Int8Storage()}


def storage_format(name: str | Storage) -> Storage:
    """The format called ``name`` (``native``, ``int8``/``kv8``, ``int4``/``kv4``), or ``name`` itself when it is a format already."""
    if not isinstance(name, str):
        return name
    if name not in FORMATS:
        raise InputError(f"cache storage format {name!r} is unknown", fix=f"use one of {', '.join(FORMATS)}")
    return FORMATS[name]
