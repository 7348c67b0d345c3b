"""CPU: without gradients, written straight into the result with two fused multiply-adds per half instead of rotated copies; with gradients the definition."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo_kernels.operations.rotary import reference


def rotary(x: Tensor, cos: Tensor, sin: Tensor, style: str = "half", position_ids: Tensor | None = None, rotary_dim: int | None = None) -> Tensor:
    """See :func:`zoo_kernels.operations.rotary.reference.rotary`."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or x.dtype != torch.float32:
        return reference.rotary(x, cos, sin, style, position_ids, rotary_dim)
    r = x.shape[-1] if rotary_dim is None else rotary_dim
    c, s = (t.float()[:, None] for t in reference.angles(cos, sin, style, position_ids, r))
    out = torch.empty(x.shape, dtype=x.dtype)
    pairs = (slice(0, r // 2), slice(r // 2, r)) if style == "half" else (slice(0, r, 2), slice(1, r, 2))
    a, b = x[..., pairs[0]], x[..., pairs[1]]
    torch.mul(a, c, out=out[..., pairs[0]]).addcmul_(b, s, value=-1)
    torch.mul(b, c, out=out[..., pairs[1]]).addcmul_(a, s)
    out[..., r:] = x[..., r:]
    return out
