"""``sparse_conv2d(features, weight, table, transposed=None) -> out``: a convolution on points, by gather, product and sum over a kernel map.

    out[o] = sum_k features[table[o, k]] @ weight[k]        over the taps k with table[o, k] >= 0

features: [N_in, C_in]; weight: [K, C_in, C_out]; table: int32 or int64 [N_out, K], the input point that tap k of output point o reads, -1 where there is
none.  One tap reads an input at most once (true of every map of :mod:`zoo_kernels.operations.sparse_conv2d.maps`, which builds submanifold, strided and
inverse maps: to this operation they are all tables).  ``transposed``: int [N_in, K], ``transpose_map(table, N_in)``; only gradients need it, and they
build it when it is absent, so give it when a map is used by several convolutions.  Sums run in float32 (float64 for float64), the result has the dtype of
features.  No points give no rows, taps without points give zeros.  Used by SparseRefine (its sparse U-Net; layout [K, C_in, C_out] as in TorchSparse).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from zoo_kernels.definition import loader, nbytes, on_cpu, on_triton, randn
from zoo_kernels.registry import KernelRegistry
from zoo_kernels.spec import KernelImpl, OpSpec

SIZES = {"empty": (2, 0, 0, 6, 20), "tiny": (2, 12, 10, 6, 20), "small": (1, 64, 128, 32, 32), "large": (1, 512, 1024, 64, 64)}
"""Images, rows, columns, channels in and out; every fourth 4 x 4 block of pixels holds points."""
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3, "float64": 1e-5}


def points(size: str, device: Any, seed: int = 0) -> Any:
    """Coordinates [N, 3] of an example: clustered, as uncertain pixels are (row-major)."""
    import torch

    images, rows, columns = SIZES[size][:3]
    blocks = torch.rand(images, (rows + 3) // 4, (columns + 3) // 4, generator=torch.Generator().manual_seed(seed)) < (0.5 if size == "tiny" else 0.25)
    mask = blocks.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, :rows, :columns]
    return mask.nonzero().int().contiguous().to(device)


def example(device: Any, dtype: Any, seed: int = 0, size: str = "tiny") -> tuple[list[Any], dict[str, Any]]:
    import torch

    from zoo_kernels.operations.sparse_conv2d.maps import submanifold_map

    coordinates, (channels, outputs) = points(size, device, seed), SIZES[size][3:]
    generator = torch.Generator().manual_seed(seed)
    features = randn((coordinates.shape[0], channels), generator, device, dtype)
    return [features, randn((9, channels, outputs), generator, device, dtype), submanifold_map(coordinates)], {}


def strided(args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The tiny example with a strided map."""
    from zoo_kernels.operations.sparse_conv2d.maps import strided_map

    return [*args[:2], strided_map(points("tiny", args[2].device))[1]], kwargs


def inverse(args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The tiny example from the coarse points back to the fine ones; the transposed table is given."""
    from zoo_kernels.operations.sparse_conv2d.maps import inverse_map, strided_map

    coordinates = points("tiny", args[2].device)
    coarse, table = strided_map(coordinates)
    return [args[0][: coarse.shape[0]], args[1], inverse_map(table, coordinates.shape[0])], {"transposed": table}


def isolated(args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """No tap finds anything but the point itself, and half of the outputs not even that."""
    table = args[2].new_full(args[2].shape, -1)
    table[::2, 4] = args[2][::2, 4]
    return [*args[:2], table], kwargs


def wide(args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """60 channels in, 80 out, 64-bit table."""
    return [args[0].repeat(1, 10), args[1].repeat(1, 10, 4), args[2].long()], kwargs


def bytes_moved(args: Any, kwargs: Any) -> int:
    """Features, weight and table read, result written (all once)."""
    features, weight, table = args[:3]
    return nbytes(features, weight, table) + int(table.shape[0]) * int(weight.shape[-1]) * features.element_size()


def flops(args: Any, kwargs: Any) -> int:
    """One product and sum per pair that exists."""
    weight, table = args[1], args[2]
    return 2 * int((table >= 0).sum()) * int(weight.shape[1]) * int(weight.shape[2])


def register(registry: KernelRegistry) -> None:
    from zoo_kernels.operations.sparse_conv2d.reference import sparse_conv2d

    name = "sparse_conv2d"
    signature = "sparse_conv2d(features[N_in,C_in], weight[K,C_in,C_out], table[N_out,K], transposed[N_in,K]=None) -> [N_out,C_out]"
    variants = {"strided": strided, "inverse": inverse, "isolated": isolated, "wide": wide}
    registry.add_op(OpSpec(name, signature, sparse_conv2d, example, TOLERANCE, bytes_moved, flops, differentiable=(0, 1), variants=variants))
    registry.add(KernelImpl(name, "cpu", loader(f"{__name__}.cpu", name), on_cpu, priority=10))
    fits = partial(on_triton, bfloat16_products=True)
    registry.add(KernelImpl(name, "triton", loader(f"{__name__}.triton", name), fits, priority=20, compile_safe=False, probe=True))
