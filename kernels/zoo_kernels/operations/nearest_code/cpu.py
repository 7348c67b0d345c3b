"""CPU: the [M, K] scores never exist at once; pieces of them stay in the cache, and one fused product-and-add makes each."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo_kernels.operations.nearest_code.reference import prepare

CHUNK = 1 << 19
"""Scores per piece."""


@torch.no_grad()
def nearest_code(x: Tensor, codebook: Tensor, metric: str = "l2") -> Tensor:
    """See :func:`zoo_kernels.operations.nearest_code.reference.nearest_code`."""
    codes, offsets = prepare(codebook, metric)
    flat = x.reshape(-1, x.shape[-1])
    if flat.shape[0] * codes.shape[0] <= CHUNK or torch.compiler.is_compiling():
        return torch.addmm(-offsets, flat.float(), codes.T).argmax(-1).view(x.shape[:-1])
    step = max(1, CHUNK // codes.shape[0])
    out = torch.empty(flat.shape[0], dtype=torch.int64)
    for begin in range(0, flat.shape[0], step):
        torch.argmax(torch.addmm(-offsets, flat[begin : begin + step].float(), codes.T), -1, out=out[begin : begin + step])
    return out.view(x.shape[:-1])
