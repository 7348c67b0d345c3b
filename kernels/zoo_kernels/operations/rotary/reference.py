"""The definition."""

from __future__ import annotations

import torch
from torch import Tensor

STYLES = ("half", "interleaved")


def angles(cos: Tensor, sin: Tensor, style: str, position_ids: Tensor | None, rotary_dim: int) -> tuple[Tensor, Tensor]:
    """cos and sin with one entry per pair, [B or 1, N, r/2], rows looked up by ``position_ids``.

    Raises:
        ValueError: Unknown style, or widths that do not fit ``rotary_dim``.
    """
    if style not in STYLES:
        raise ValueError(f"rotary: style {style!r} is unknown; choose from {', '.join(STYLES)}")
    if rotary_dim % 2 or cos.shape != sin.shape or cos.shape[-1] not in (rotary_dim // 2, rotary_dim):
        raise ValueError(
            f"rotary: cos {tuple(cos.shape)} and sin {tuple(sin.shape)} must have {rotary_dim // 2} or {rotary_dim} channels for rotary_dim {rotary_dim}"
        )
    if cos.shape[-1] == rotary_dim:
        pick = slice(0, rotary_dim // 2) if style == "half" else slice(0, None, 2)
        cos, sin = cos[..., pick], sin[..., pick]
    if position_ids is not None:
        cos, sin = cos[position_ids], sin[position_ids]
    return cos, sin


def rotary(x: Tensor, cos: Tensor, sin: Tensor, style: str = "half", position_ids: Tensor | None = None, rotary_dim: int | None = None) -> Tensor:
    """[B, H, N, d] -> [B, H, N, d]; see the package docstring.

    >>> quarter = torch.tensor([[[0.0]]]), torch.tensor([[[1.0]]])  # cos and sin of 90 degrees
    >>> rotary(torch.tensor([[[[1.0, 2.0]]]]), *quarter)
    tensor([[[[-2.,  1.]]]])
    """
    r = x.shape[-1] if rotary_dim is None else rotary_dim
    c, s = (t.float()[:, None] for t in angles(cos, sin, style, position_ids, r))
    y = x[..., :r].float()
    if style == "half":
        a, b = y[..., : r // 2], y[..., r // 2 :]
        y = torch.cat((a * c - b * s, b * c + a * s), -1)
    else:
        a, b = y[..., 0::2], y[..., 1::2]
        y = torch.stack((a * c - b * s, b * c + a * s), -1).flatten(-2)
    return torch.cat((y.to(x.dtype), x[..., r:]), -1)
