"""The sparse U-Net with ordinary convolutions on a full rectangle of pixels: what it is measured against, and a check of it.

With every pixel selected and ``bounds="size"`` the sparse network computes the same numbers (``tests/test_sr_engines.py``).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_sparse_refine.unet import SparseUNet


class DenseTwin(nn.Module):
    """Same weights, as [C_out, C_in, 3, 3] convolutions of [B, C, H, W] (converted once; the sparse network is not changed)."""

    def __init__(self, network: SparseUNet) -> None:
        super().__init__()
        self.norms, self.weights = nn.ModuleDict(), nn.ParameterDict()
        for name, module in network.named_modules():
            if isinstance(module, nn.BatchNorm1d):
                self.norms[_key(name)] = _norm2d(module)
            elif hasattr(module, "kernel"):
                self.weights[_key(name)] = nn.Parameter(dense_weight(module.kernel.detach(), transposed=name.endswith(".1.6")), requires_grad=False)
        self.network: Any = [network]  # not a submodule: its weights are here already

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, planes[0], H, W]."""
        x = F.conv2d(x, self.weights[_key("net.0")], padding=1)
        x = self._stage(x, self.network[0].net["1"], "net.1")
        return self._norm(x, "net.2")

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.relu(self.norms[_key(name)](x))

    def _block(self, x: Tensor, name: str) -> Tensor:
        inner = F.conv2d(self._norm(x, f"{name}.1.0"), self.weights[_key(f"{name}.1.2")], padding=1)
        outer = F.conv2d(self._norm(inner, f"{name}.1.3"), self.weights[_key(f"{name}.1.5")], padding=1)
        straight = F.conv2d(x, self.weights[_key(f"{name}.0")]) if _key(f"{name}.0") in self.weights else x
        return straight + outer

    def _stage(self, x: Tensor, stage: Any, name: str) -> Tensor:
        for number in range(stage.count):
            x = self._block(x, f"{name}.{2 * number}")
        if stage.deepest:
            return x
        middle = f"{name}.{2 * stage.count}.1"
        below = stage._modules[str(2 * stage.count)]["1"]["3"]
        if min(x.shape[2:]) < 3:  # no coarse pixel fits: the empty level adds nothing
            back = x.new_zeros(x.shape)
        else:
            deep = F.conv2d(self._norm(x, f"{middle}.0"), self.weights[_key(f"{middle}.2")], stride=2)
            deep = self._norm(self._stage(deep, below, f"{middle}.3"), f"{middle}.4")
            back = F.conv_transpose2d(deep, self.weights[_key(f"{middle}.6")], stride=2)
        back = F.pad(back, (0, x.shape[3] - back.shape[3], 0, x.shape[2] - back.shape[2]))  # the last row or column of an even side is covered by no output
        x = torch.cat((x, back), 1)
        for number in range(stage.count):
            x = self._block(x, f"{name}.{2 * stage.count + 2 + 2 * number}")
        return x


def dense_weight(kernel: Tensor, *, transposed: bool = False) -> Tensor:
    """A kernel [9, C_in, C_out] (tap = row + 3 column) as conv2d weight [C_out, C_in, 3, 3], or conv_transpose2d weight [C_in, C_out, 3, 3];
    [C_in, C_out] as 1 x 1.

    >>> dense_weight(torch.zeros(9, 5, 7)).shape, dense_weight(torch.zeros(9, 5, 7), transposed=True).shape, dense_weight(torch.zeros(5, 7)).shape
    (torch.Size([7, 5, 3, 3]), torch.Size([5, 7, 3, 3]), torch.Size([7, 5, 1, 1]))
    """
    if kernel.dim() == 2:
        return kernel.T[:, :, None, None].contiguous()
    square = kernel.reshape(3, 3, *kernel.shape[1:])
    return square.permute(2, 3, 1, 0).contiguous() if transposed else square.permute(3, 2, 1, 0).contiguous()


def _key(name: str) -> str:
    return name.replace(".", "/")


def _norm2d(norm: nn.BatchNorm1d) -> nn.BatchNorm2d:
    out = nn.BatchNorm2d(norm.num_features, eps=norm.eps, momentum=norm.momentum, device=norm.weight.device)
    out.load_state_dict(norm.state_dict())
    return out.eval()
