"""The definition."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

METRICS = ("l2", "cosine")


def prepare(codebook: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    """Codes [K, d] and offsets [K] in float32 such that the nearest code has the largest ``x . code - offset``.

    Raises:
        ValueError: Unknown metric or empty codebook.
    """
    if metric not in METRICS:
        raise ValueError(f"nearest_code: metric {metric!r} is unknown; choose from {', '.join(METRICS)}")
    if codebook.shape[0] == 0:
        raise ValueError("nearest_code: the codebook is empty")
    codes = codebook.float()
    if metric == "cosine":
        return F.normalize(codes, dim=-1), codes.new_zeros(codes.shape[0])
    return codes, codes.square().sum(-1) / 2


def nearest_code(x: Tensor, codebook: Tensor, metric: str = "l2") -> Tensor:
    """[..., d] and [K, d] -> int64 [...]; see the package docstring.

    >>> import torch
    >>> nearest_code(torch.tensor([[0.9, 0.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    tensor([0, 1])
    """
    codes, offsets = prepare(codebook, metric)
    return (x.float() @ codes.T - offsets).argmax(-1)
