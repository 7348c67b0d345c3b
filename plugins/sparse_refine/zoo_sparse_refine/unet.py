"""The sparse U-Net (fact sheet 2.3), with the reference's parameter names: every container's index is a position in its sequence."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_sparse_refine.sparse.engines import Engine

Taps = dict[str, Tensor]


class SparseConv(nn.Module):
    """A weight ``kernel``: [9, C_in, C_out], or [C_in, C_out] for 1 x 1.  No bias."""

    def __init__(self, inputs: int, outputs: int, *, taps: int = 9, transposed: bool = False) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty((inputs, outputs) if taps == 1 else (taps, inputs, outputs)))
        self.bound = (taps * (outputs if transposed else inputs)) ** -0.5
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in +-1/sqrt(taps * C_in) (transposed: C_out)."""
        nn.init.uniform_(self.kernel, -self.bound, self.bound)


class PointNorm(nn.BatchNorm1d):
    """Batch norm over all points of the batch, eps 1e-5, momentum 0.1; with fewer than two points the running statistics are used."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C] -> [N, C]."""
        if not x.shape[0]:
            return x
        if self.training and x.shape[0] < 2:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


def parts(**modules: nn.Module) -> nn.ModuleDict:
    """Modules under their positions: ``parts(_0=..., _2=...)``."""
    return nn.ModuleDict({name[1:]: module for name, module in modules.items()})


class Block(nn.Module):
    """Pre-activation residual block a -> b; the 1 x 1 shortcut (where a != b) acts on the un-normalised input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        if inputs != outputs:
            self.add_module("0", SparseConv(inputs, outputs, taps=1))
        self.add_module("1", parts(_0=PointNorm(inputs), _2=SparseConv(inputs, outputs), _3=PointNorm(outputs), _5=SparseConv(outputs, outputs)))

    def forward(self, x: Tensor, engine: Engine, level: int, name: str, taps: Taps | None) -> Tensor:
        """[N, a] -> [N, b]."""
        branch: Any = self._modules["1"]
        shortcut: Any = self._modules.get("0")
        inner = engine.submanifold(F.relu(branch["0"](x)), branch["2"].kernel, level)
        outer = engine.submanifold(F.relu(branch["3"](inner)), branch["5"].kernel, level)
        straight = x if shortcut is None else x @ shortcut.kernel.to(x.dtype)
        if taps is not None:
            taps |= {f"{name}.1.2": inner, f"{name}.1.5": outer} | ({} if shortcut is None else {f"{name}.0": straight})
        return straight + outer


class Stage(nn.Module):
    """U(level): blocks, then down, U(level + 1), up, concatenation with the skip, and decoder blocks; the deepest has only blocks."""

    def __init__(self, reps: list[int], planes: list[int], level: int = 0) -> None:
        super().__init__()
        count, width = reps[0], planes[0]
        self.level, self.count, self.deepest = level, count, len(planes) == 1
        for number in range(count):
            self.add_module(str(2 * number), Block(width, width))
        if not self.deepest:
            below = planes[1]
            inner = parts(
                _0=PointNorm(width),
                _2=SparseConv(width, below),
                _3=Stage(reps[1:], planes[1:], level + 1),
                _4=PointNorm(below),
                _6=SparseConv(below, width, transposed=True),
            )
            self.add_module(str(2 * count), nn.ModuleDict({"1": inner}))
            for number in range(count):
                self.add_module(str(2 * count + 2 + 2 * number), Block(2 * width if number == 0 else width, width))

    def forward(self, x: Tensor, engine: Engine, name: str, taps: Taps | None) -> Tensor:
        """[N, n_l] -> [N, n_l]."""
        modules: Any = self._modules
        for number in range(self.count):
            x = modules[str(2 * number)](x, engine, self.level, f"{name}.{2 * number}", taps)
        if self.deepest:
            return x
        middle = 2 * self.count
        inner, label = modules[str(middle)]["1"], f"{name}.{middle}.1"
        coarse = engine.down(F.relu(inner["0"](x)), inner["2"].kernel, self.level)
        if taps is not None:
            taps[f"{label}.2"] = coarse
        deep = F.relu(inner["4"](inner["3"](coarse, engine, f"{label}.3", taps)))
        back = engine.up(deep, inner["6"].kernel, self.level)
        if taps is not None:
            taps[f"{label}.6"] = back
        x = torch.cat((x, back), 1)
        for number in range(self.count):
            index = middle + 2 + 2 * number
            x = modules[str(index)](x, engine, self.level, f"{name}.{index}", taps)
        return x


class SparseUNet(nn.Module):
    """Features of points [N, in] -> [N, planes[0]].

    Keys as the reference writes them: ``net.0.kernel``, ``net.1...``, ``net.2`` (final norm).
    """

    def __init__(self, in_channels: int, reps: list[int], planes: list[int]) -> None:
        super().__init__()
        self.depth = len(planes)
        self.net = parts(_0=SparseConv(in_channels, planes[0]), _1=Stage(list(reps), list(planes)), _2=PointNorm(planes[0]))

    def forward(self, x: Tensor, engine: Engine, taps: Taps | None = None) -> Tensor:
        """Args:
        x: [N, in], in the order of the engine's points.
        engine: Built for the same points with this network's depth.
        taps: Filled with the output of every convolution under the reference's names, when given.
        """
        first: Any = self.net["0"]
        x = engine.submanifold(x, first.kernel, 0)
        if taps is not None:
            taps["net.0"] = x
        x = self.net["1"](x, engine, "net.1", taps)
        if taps is not None:
            taps["net.1"] = x
        return F.relu(self.net["2"](x))
