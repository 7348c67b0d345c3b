"""Muon for convolutional and linear weights, AdamW for everything else.

Muon (momentum orthogonalised by Newton-Schulz iterations; Jordan et al. 2024) is in torch for matrices only; here a convolution weight [out, in, kh, kw] is
the matrix [out, in*kh*kw].  Updates are scaled by ``0.2 * sqrt(max(rows, columns))`` so that AdamW's learning rates and decay carry over (Liu et al. 2025,
arXiv 2502.16982).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: torch.Tensor, steps: int = 5, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Nearest (semi-)orthogonal matrix, approximately: all singular values of the result lie in about [0.7, 1.2]; dtype of the result is ``dtype``."""
    a, b, c = COEFFICIENTS
    x = matrix.to(dtype)
    turned = x.shape[0] > x.shape[1]
    if turned:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + torch.addmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x.T if turned else x


class Muon(torch.optim.Optimizer):
    """One optimiser for a whole module: Muon for weights with at least two dimensions, AdamW for vectors and the parameters in ``adamw``.

    Args:
        parameters: Parameters; those with fewer than 2 dimensions go to AdamW by themselves.
        adamw: More parameters for AdamW (embeddings, first and last layers).
        lr: One learning rate for both.
        momentum: Nesterov momentum of Muon.
        betas, eps: Of AdamW.
        shared: Under torchrun with whole copies (``parallel=replicate``): every process orthogonalises its share of the weights and sends it to the others.
        weight_decay: Decoupled, of Muon's weights and of AdamW's that have at least two dimensions.

    Example:
        >>> layer = torch.nn.Conv2d(4, 8, 3)
        >>> optimiser = Muon(layer.parameters(), lr=1e-3)
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        adamw: Iterable[nn.Parameter] = (),
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        shared: bool = False,
    ) -> None:
        self.shared = shared
        special = list(adamw)
        known = {id(p) for p in special}
        mine = [p for p in parameters if id(p) not in known]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in mine if p.ndim >= 2], "muon": True, "weight_decay": weight_decay},
            {"params": [p for p in special if p.ndim >= 2], "muon": False, "weight_decay": weight_decay},
            {"params": [p for p in [*mine, *special] if p.ndim < 2], "muon": False, "weight_decay": 0.0},
        ]
        super().__init__([g for g in groups if g["params"]], {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            update = self._muon if group["muon"] else self._adamw
            live = [p for p in group["params"] if p.grad is not None]
            if live:
                update(group, live)
        return loss

    def _muon(self, group: dict[str, Any], live: list[nn.Parameter]) -> None:
        ranks = dist.get_world_size() if self.shared and dist.is_initialized() else 1
        owners = _spread(live, ranks)
        updates: list[torch.Tensor] = []
        for parameter, owner in zip(live, owners):
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            gradient: Any = parameter.grad
            momentum = state["momentum"].mul_(group["momentum"]).add_(gradient)
            if ranks > 1 and owner != dist.get_rank():
                updates.append(torch.empty(parameter.shape, dtype=torch.bfloat16, device=parameter.device))
                continue
            matrix = gradient.add(momentum, alpha=group["momentum"]).reshape(parameter.shape[0], -1)
            updates.append(orthogonalise(matrix).reshape(parameter.shape))
        if ranks > 1:
            _exchange(updates, owners, ranks)
        for parameter, update in zip(live, updates):
            scale = 0.2 * max(parameter.shape[0], parameter[0].numel()) ** 0.5
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.to(parameter.dtype), alpha=-group["lr"] * scale)

    def _adamw(self, group: dict[str, Any], live: list[nn.Parameter]) -> None:
        first, second = group["betas"]
        for parameter in live:
            state = self.state[parameter]
            if not state:
                state.update(step=torch.zeros((), dtype=torch.float32), mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
            state["step"] += 1
            count = float(state["step"])
            mean = state["mean"].lerp_(parameter.grad, 1 - first)  # type: ignore[arg-type]
            square = state["square"].mul_(second).addcmul_(parameter.grad, parameter.grad, value=1 - second)  # type: ignore[arg-type]
            scale = (square / (1 - second**count)).sqrt_().add_(group["eps"])
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.addcdiv_(mean, scale, value=-group["lr"] / (1 - first**count))


def _spread(parameters: list[nn.Parameter], ranks: int) -> list[int]:
    """Owner of each parameter: heaviest first to the least loaded process (the same answer on all)."""
    load, owners = [0] * ranks, [0] * len(parameters)
    cost = [p.numel() * min(p.shape[0], p[0].numel()) for p in parameters]
    for index in sorted(range(len(parameters)), key=lambda i: (-cost[i], i)):
        owners[index] = load.index(min(load))
        load[owners[index]] += cost[index]
    return owners


def _exchange(updates: list[torch.Tensor], owners: list[int], ranks: int) -> None:
    """Fill in the updates that other processes made: one broadcast per process."""
    for rank in range(ranks):
        places = [i for i, owner in enumerate(owners) if owner == rank]
        flat = torch.cat([updates[i].contiguous().reshape(-1) for i in places]) if places else None
        if flat is None:
            continue
        dist.broadcast(flat.view(torch.uint8), rank)
        for i, part in zip(places, flat.split([updates[i].numel() for i in places])):
            updates[i] = part.view(updates[i].shape)
