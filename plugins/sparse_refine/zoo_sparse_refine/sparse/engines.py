"""Engines: who computes the sparse convolutions of a :mod:`pyramid <zoo_sparse_refine.sparse.pyramid>`.

``"kernels"`` is the operation ``sparse_conv2d`` of zoo_kernels (its definition in PyTorch on every device, its CPU and Triton implementations);
``"spconv"`` and ``"spconv-triton"`` call ``spconv.pytorch`` (the package of that name, or its drop-in).  Weights are stored [9, C_in, C_out]
always, tap k = row + 3 * column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo_core.errors import ConfigError, MissingDependencyError
from zoo_sparse_refine.sparse.pyramid import Level, build_pyramid

ENGINES = ("kernels", "spconv", "spconv-triton")


class Engine(Protocol):
    """Computes on the points of one batch."""

    levels: list[Level]

    def submanifold(self, x: Tensor, weight: Tensor, level: int) -> Tensor:
        """3 x 3, outputs are the inputs: [N, C_in] -> [N, C_out]."""
        ...

    def down(self, x: Tensor, weight: Tensor, level: int) -> Tensor:
        """3 x 3, stride 2, no padding: points of ``level`` -> points of ``level + 1``."""
        ...

    def up(self, x: Tensor, weight: Tensor, level: int) -> Tensor:
        """Transposed: points of ``level + 1`` -> points of ``level``."""
        ...


class KernelEngine:
    """Gather, product, sum over tables (``op`` is the bound ``sparse_conv2d``)."""

    def __init__(self, levels: list[Level], op: Callable[..., Tensor]) -> None:
        self.levels, self.op = levels, op

    def submanifold(self, x: Tensor, weight: Tensor, level: int) -> Tensor:
        here = self.levels[level]
        return self.op(x, weight, here.near, here.far)

    def down(self, x: Tensor, weight: Tensor, level: int) -> Tensor:
        here = self.levels[level]
        assert here.down is not None
        return self.op(x, weight, here.down, here.up)

    def up(self, x: Tensor, weight: Tensor, level: int) -> Tensor:
        here = self.levels[level]
        assert here.up is not None
        return self.op(x, weight, here.up, here.down)


class SpconvEngine:
    """``spconv.pytorch`` modules, called with our weights (a view in spconv's layout [C_out, 3, 3, C_in]; no second copy is kept)."""

    def __init__(self, coordinates: Tensor, depth: int, *, size: tuple[int, int], images: int, bounds: str, package: str = "spconv") -> None:
        self.spconv = import_spconv(package)
        if bounds == "image":
            raise ConfigError("spconv has no bounds of each image", fix='refiner.bounds=size, or engine="kernels"')
        self.bounds, self.images = bounds, images
        # int32 and contiguous: spconv reads other strides without complaint and computes nonsense
        tensor = self.spconv.SparseConvTensor(coordinates.new_zeros(coordinates.shape[0], 1).float(), coordinates.int().contiguous(), list(size), images)
        self.tensors: list[Any] = [tensor] * depth
        self.modules: dict[tuple[Any, ...], Any] = {}
        self.levels: list[Level] = []

    def _module(self, kind: str, weight: Tensor, level: int) -> Any:
        key = (kind, level, *weight.shape)
        if key not in self.modules:
            inputs, outputs = weight.shape[1:]
            with torch.device("meta"):
                if kind == "submanifold":
                    module = self.spconv.SubMConv2d(inputs, outputs, 3, bias=False, indice_key=f"near{level}")
                elif kind == "down":
                    module = self.spconv.SparseConv2d(inputs, outputs, 3, stride=2, padding=0, bias=False, indice_key=f"down{level}")
                else:
                    module = self.spconv.SparseInverseConv2d(inputs, outputs, 3, bias=False, indice_key=f"down{level}")
            self.modules[key] = module.eval()
        return self.modules[key]

    def _run(self, kind: str, x: Tensor, weight: Tensor, level: int, tensor: Any) -> Any:
        if weight.requires_grad and torch.is_grad_enabled() and x.device.type == "cpu":
            raise ConfigError("spconv has no gradients on CPUs", fix='train with engine="kernels"')
        inputs, outputs = weight.shape[1:]
        view = weight.reshape(3, 3, inputs, outputs).permute(3, 1, 0, 2).contiguous()
        module = self._module(kind, weight, level)
        with one_thread(x.device):
            return torch.func.functional_call(module, {"weight": view}, (tensor.replace_feature(x),))

    def submanifold(self, x: Tensor, weight: Tensor, level: int) -> Tensor:
        return self._run("submanifold", x, weight, level, self.tensors[level]).features if x.shape[0] else x.new_zeros(0, weight.shape[2])

    def down(self, x: Tensor, weight: Tensor, level: int) -> Tensor:
        tensor = self.tensors[level]
        if self.bounds == "batch" and x.shape[0]:
            tensor = tensor.replace_feature(tensor.features)  # the convolution back up compares with the shape that this level was made with
            tensor.spatial_shape = [int(v) + 1 for v in tensor.indices[:, 1:].amax(0)]
        if not x.shape[0] or min(tensor.spatial_shape) < 3:  # no output: spconv refuses what the reference crashes on
            self.tensors[level + 1] = None
            return x.new_zeros(0, weight.shape[2])
        out = self._run("down", x, weight, level, tensor)
        self.tensors[level + 1] = out
        return out.features

    def up(self, x: Tensor, weight: Tensor, level: int) -> Tensor:
        fine = self.tensors[level]
        if not x.shape[0]:
            return x.new_zeros(0 if fine is None else fine.indices.shape[0], weight.shape[2])
        return self._run("up", x, weight, level, self.tensors[level + 1]).features


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """A single thread on CPUs: spconv 2.3.8 adds results there from several threads without locks, and loses some (seen: errors of 0.1 with two threads)."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def import_spconv(package: str) -> Any:
    """``spconv.pytorch``; both packages provide the name.

    Raises:
        MissingDependencyError: Neither is installed.
    """
    try:
        import spconv.pytorch as module
    except ImportError as error:
        raise MissingDependencyError(f"the engine {package!r} needs the package {package}", tried=[str(error)], fix=f"pip install {package}") from error
    return module


def make_engine(
    name: str, coordinates: Tensor, depth: int, *, size: tuple[int, int], images: int, bounds: str, op: Callable[..., Tensor] | None = None
) -> Engine:
    """The engine ``name`` for one batch of points.

    Raises:
        ConfigError: Unknown engine.
        MissingDependencyError: Its package is not installed.
    """
    if name == "kernels":
        if op is None:
            import zoo_kernels

            op = zoo_kernels.select("sparse_conv2d", device=coordinates.device, dtype=torch.float32, needs_grad=torch.is_grad_enabled())
        return KernelEngine(build_pyramid(coordinates, depth, size=size, images=images, bounds=bounds), op)
    if name in ENGINES:
        return SpconvEngine(coordinates, depth, size=size, images=images, bounds=bounds, package=name)
    raise ConfigError(f"engine {name!r} is unknown", fix=f"one of {', '.join(ENGINES)}")
