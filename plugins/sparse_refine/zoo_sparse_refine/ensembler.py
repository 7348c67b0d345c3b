"""How coarse and refined scores of a pixel become one (fact sheet 2.5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo_sparse_refine.selection import entropy


class GatedEnsembler(nn.Module):
    """w = softmax(attn([p1, e1, p2, e2])), y = w_0 l1 + w_1 l2, out = fuser(y): the gate sees probabilities and entropies, the logits are mixed.

    >>> GatedEnsembler(4)(torch.zeros(7, 4), torch.zeros(7, 4)).shape
    torch.Size([7, 4])
    """

    def __init__(self, num_classes: int, hidden: int = 64) -> None:
        super().__init__()
        self.attn = nn.Sequential(nn.Linear(2 * (num_classes + 1), hidden), nn.ReLU(), nn.Linear(hidden, 2))
        self.fuser = nn.Sequential(nn.Linear(num_classes, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))

    def gate(self, coarse: Tensor, refined: Tensor) -> Tensor:
        """Weights [N, 2] of the coarse and the refined logits [N, C]."""
        parts = []
        for logits in (coarse, refined):
            probabilities = logits.softmax(-1)
            parts += [probabilities, entropy(probabilities)[:, None]]
        return self.attn(torch.cat(parts, -1)).softmax(-1)

    def mix(self, coarse: Tensor, refined: Tensor) -> Tensor:
        """Gate-weighted sum [N, C]."""
        weights = self.gate(coarse, refined)
        return weights[:, :1] * coarse + weights[:, 1:] * refined

    def forward(self, coarse: Tensor, refined: Tensor) -> Tensor:
        """Final logits [N, C]."""
        return self.fuser(self.mix(coarse, refined))


class EntropyEnsembler(nn.Module):
    """Without parameters: the coarse logits where their entropy is strictly smaller, else the refined ones."""

    def forward(self, coarse: Tensor, refined: Tensor) -> Tensor:
        """[N, C], [N, C] -> [N, C]."""
        surer = entropy(coarse.softmax(-1)) < entropy(refined.softmax(-1))
        return torch.where(surer[:, None], coarse, refined)
