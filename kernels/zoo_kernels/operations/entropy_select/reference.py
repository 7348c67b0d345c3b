"""The definition."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CLAMP = 1e-5
"""Smallest probability whose logarithm is taken."""


def nearest_index(source: int, target: int, device: torch.device | str = "cpu") -> Tensor:
    """int64 [target]: which of ``source`` cells nearest-neighbour interpolation reads for each of ``target`` places.

    Taken from ``F.interpolate`` itself, so that pictures upsampled with it agree at every size.

    >>> nearest_index(3, 6).tolist()
    [0, 0, 1, 1, 2, 2]
    """
    if source == 0 or target == 0:
        return torch.zeros(0 if source == 0 else target, dtype=torch.int64, device=device)
    cells = torch.arange(source, dtype=torch.float32, device=device)
    return F.interpolate(cells[None, None], size=target, mode="nearest")[0, 0].long()


def entropy_of(scores: Tensor, dim: int) -> Tensor:
    """Entropy in nats of softmax(scores) over ``dim``, float32."""
    p = torch.softmax(scores.float(), dim)
    return -(p * p.clamp_min(CLAMP).log()).sum(dim)


def coordinates_of(entropy: Tensor, threshold: float, size: tuple[int, int] | None = None) -> Tensor:
    """int32 [N, 3], contiguous and row-major: pixels of the picture of ``size`` (default: the map's own) whose entropy [B, h, w] is above the threshold."""
    mask = entropy > threshold
    if size is not None and tuple(size) != tuple(mask.shape[1:]):
        rows, columns = (nearest_index(mask.shape[1 + i], size[i], mask.device) for i in range(2))
        mask = mask[:, rows][:, :, columns]
    return mask.nonzero().int().contiguous()


@torch.no_grad()
def entropy_select(scores: Tensor, threshold: float, size: tuple[int, int] | None = None, channels_last: bool = False) -> tuple[Tensor, Tensor]:
    """[B, C, h, w] -> (int32 [N, 3], float32 [B, h, w]); see the package docstring.

    Raises:
        ValueError: The scores do not have four dimensions.

    >>> scores = torch.tensor([[5.0, 0.0], [0.0, 0.0]]).T.reshape(1, 2, 1, 2)
    >>> where, entropy = entropy_select(scores, 0.3, size=(2, 4))
    >>> where.tolist()
    [[0, 0, 2], [0, 0, 3], [0, 1, 2], [0, 1, 3]]
    """
    if scores.dim() != 4:
        raise ValueError(f"entropy_select: scores {tuple(scores.shape)} are not [B, C, h, w] or [B, h, w, C]")
    entropy = entropy_of(scores, -1 if channels_last else 1)
    return coordinates_of(entropy, threshold, size), entropy
