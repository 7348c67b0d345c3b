"""The definition: tap by tap, the pairs that exist are gathered, multiplied, and added to their outputs."""

from __future__ import annotations

import torch
from torch import Tensor


def check(features: Tensor, weight: Tensor, table: Tensor) -> None:
    """The shapes fit.

    Raises:
        ValueError: They do not; the message names both sides.
    """
    if features.dim() != 2 or weight.dim() != 3 or table.dim() != 2:
        raise ValueError(
            f"sparse_conv2d: features {tuple(features.shape)}, weight {tuple(weight.shape)}, table {tuple(table.shape)} are not [N, C], [K, C, D], [M, K]"
        )
    if features.shape[1] != weight.shape[1] or table.shape[1] != weight.shape[0]:
        raise ValueError(
            f"sparse_conv2d: weight {tuple(weight.shape)} is not [K, C_in, C_out] for features with {features.shape[1]} channels and a table with "
            f"{table.shape[1]} taps"
        )


def sparse_conv2d(features: Tensor, weight: Tensor, table: Tensor, transposed: Tensor | None = None) -> Tensor:
    """[N_in, C_in] -> [N_out, C_out]; see the package docstring.

    Raises:
        ValueError: The shapes do not fit.

    >>> x, w = torch.tensor([[1.0], [10.0]]), torch.tensor([[[2.0]], [[3.0]]])
    >>> sparse_conv2d(x, w, torch.tensor([[0, 1], [1, -1], [-1, -1]]))
    tensor([[32.],
            [20.],
            [ 0.]])
    """
    check(features, weight, table)
    wide = torch.promote_types(features.dtype, torch.float32)
    source, kernel = features.to(wide), weight.to(wide)
    out = source.new_zeros(table.shape[0], weight.shape[2])
    for tap in range(weight.shape[0]):
        rows = (table[:, tap] >= 0).nonzero()[:, 0]
        out = out.index_add(0, rows, source.index_select(0, table[rows, tap]) @ kernel[tap])
    return out.to(features.dtype)
