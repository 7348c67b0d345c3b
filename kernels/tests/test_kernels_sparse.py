"""Sparse convolutions and the entropy selector: maps against dense convolutions, the reference's fixtures, and edges."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from zoo_kernels.operations.entropy_select.reference import coordinates_of, nearest_index
from zoo_kernels.operations.sparse_conv2d.maps import Points, inverse_map, strided_map, strided_size, submanifold_map, transpose_map
from zoo_kernels.registry import registry

GOLDEN = Path(os.environ.get("ZOO_GOLDEN") or Path(__file__).resolve().parents[2].parent / "shared" / "golden") / "sparse-refine"
CONVS = [item.name for item in registry.implementations("sparse_conv2d") if item.name in ("reference", "cpu")]
SELECTS = [item.name for item in registry.implementations("entropy_select") if item.name in ("reference", "cpu")]


def load(op: str, name: str):
    return registry.implementation(op, name).load()


def picture(seed: int = 0, share: float = 0.4) -> tuple[Tensor, Tensor, Tensor]:
    """Mask [2, 11, 14], coordinates, and features scattered into [2, 4, 11, 14]."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(2, 11, 14, generator=generator) < share
    mask[1, 9:] = False
    coordinates = mask.nonzero().int().contiguous()
    features = torch.randn(coordinates.shape[0], 4, generator=generator)
    dense = torch.zeros(2, 11, 14, 4)
    dense[mask] = features
    return coordinates, features, dense.permute(0, 3, 1, 2)


def at(dense: Tensor, coordinates: Tensor) -> Tensor:
    b, r, c = coordinates.long().unbind(1)
    return dense[b, :, r, c]


@pytest.mark.parametrize("name", CONVS)
def test_submanifold_is_a_dense_convolution_read_at_the_points(name: str) -> None:
    coordinates, features, dense = picture()
    kernel = torch.randn(9, 4, 5)
    out = load("sparse_conv2d", name)(features, kernel, submanifold_map(coordinates))
    expected = F.conv2d(dense, kernel.reshape(3, 3, 4, 5).permute(3, 2, 1, 0), padding=1)
    assert torch.allclose(out, at(expected, coordinates), atol=1e-5)


@pytest.mark.parametrize("name", CONVS)
def test_strided_and_inverse_are_dense_ones(name: str) -> None:
    coordinates, features, dense = picture(1)
    kernel = torch.randn(9, 4, 5)
    coarse, table = strided_map(coordinates, (11, 14), 2, bounds="size")
    conv = load("sparse_conv2d", name)
    weight = kernel.reshape(3, 3, 4, 5).permute(3, 2, 1, 0)
    expected = F.conv2d(dense, weight, stride=2)
    assert expected.shape[2:] == strided_size((11, 14))
    out = conv(features, kernel, table)
    assert torch.allclose(out, at(expected, coarse), atol=1e-5)
    there = torch.zeros(2, *expected.shape[2:], dtype=torch.bool)
    there[tuple(coarse.long().unbind(1))] = True
    assert torch.equal(there, F.max_pool2d((dense != 0).any(1).float(), 3, 2) > 0), "outputs stand where an input does, and are sorted"
    assert torch.equal(there.nonzero().int(), coarse)
    back = conv(out, kernel.transpose(1, 2).contiguous(), inverse_map(table, features.shape[0]))
    grid = torch.zeros(2, 5, *expected.shape[2:])
    grid[coarse[:, 0].long(), :, coarse[:, 1].long(), coarse[:, 2].long()] = out
    up = F.conv_transpose2d(grid, weight, stride=2)
    full = torch.zeros(2, 4, 11, 14)
    full[:, :, : up.shape[2], : up.shape[3]] = up
    assert torch.allclose(back, at(full, coordinates), atol=1e-5)


def test_bounds() -> None:
    coordinates = torch.tensor([[0, 0, 0], [0, 4, 5], [1, 8, 8]], dtype=torch.int32)
    batch, image, size = (strided_map(coordinates, (12, 12), 2, bounds=bounds)[0].tolist() for bounds in ("batch", "image", "size"))
    assert [0, 2, 2] in batch and [1, 3, 3] in batch and [1, 4, 4] not in batch, "o <= (8 - 2) // 2 = 3 for every image"
    assert [0, 1, 1] not in image and [0, 2, 2] not in image and [0, 0, 0] in image and [1, 3, 3] in image, (
        "image 0: rows to (4 - 2) // 2 = 1, columns to (5 - 2) // 2 = 1"
    )
    assert [1, 4, 4] in size and [0, 2, 2] in size
    alone = strided_map(coordinates[:2], (12, 12), 1, bounds="image")[0].tolist()
    assert alone == [c for c in image if c[0] == 0], "an image does not depend on its neighbours"
    assert strided_map(coordinates)[0].tolist() == batch, "the default is the rule of the published checkpoints"


@pytest.mark.parametrize("bounds", ["batch", "image", "size"])
def test_binary_search_and_grid_agree_in_any_order(bounds: str) -> None:
    coordinates = picture(2)[0]
    coordinates = coordinates[torch.randperm(coordinates.shape[0], generator=torch.Generator().manual_seed(0))]
    small, large = Points(coordinates, (11, 14), 2), Points(coordinates, (11, 14), 2, cells=0)
    assert small.grid is not None and large.grid is None
    assert torch.equal(submanifold_map(coordinates, points=small), submanifold_map(coordinates, points=large))
    for left, right in zip(*(strided_map(coordinates, (11, 14), 2, bounds=bounds, points=p) for p in (small, large))):  # type: ignore[arg-type]
        assert torch.equal(left, right) and left.dtype == torch.int32 and left.is_contiguous()


def test_transposing_twice_gives_the_map_back() -> None:
    coordinates = picture(3)[0]
    coarse, table = strided_map(coordinates)
    assert torch.equal(transpose_map(transpose_map(table, coordinates.shape[0]), coarse.shape[0]), table)
    same = submanifold_map(coordinates)
    assert torch.equal(transpose_map(same, coordinates.shape[0]), same.flip(1))


@pytest.mark.parametrize("name", CONVS)
def test_nothing_in_nothing_out(name: str) -> None:
    none = torch.zeros(0, 3, dtype=torch.int32)
    coarse, table = strided_map(none)
    assert coarse.shape == (0, 3) and table.shape == (0, 9) and submanifold_map(none).shape == (0, 9) and inverse_map(table, 0).shape == (0, 9)
    conv, weight = load("sparse_conv2d", name), torch.randn(9, 4, 5, requires_grad=True)
    assert conv(torch.zeros(0, 4), weight, submanifold_map(none)).shape == (0, 5)
    point = torch.tensor([[0, 3, 1]], dtype=torch.int32)
    coarse, table = strided_map(point)
    assert coarse.shape == (0, 3), "one column of points is narrower than the kernel"
    features = torch.randn(1, 4, requires_grad=True)
    down = conv(features, weight, table)
    up = conv(down, torch.randn(9, 5, 4), inverse_map(table, 1))
    assert down.shape == (0, 5) and torch.equal(up, torch.zeros(1, 4)), "an empty level contributes zeros"
    gradients = torch.autograd.grad(up.sum() + down.sum(), [features, weight])
    assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients)


@pytest.mark.parametrize("name", CONVS)
def test_gradients_are_exact(name: str) -> None:
    coordinates = picture(4, 0.15)[0]
    table = strided_map(coordinates)[1]
    conv = load("sparse_conv2d", name)
    features, weight = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((coordinates.shape[0], 3), (9, 3, 2)))
    assert torch.autograd.gradcheck(lambda x, w: conv(x, w, table), (features, weight), fast_mode=True)
    only = torch.autograd.grad(conv(features.detach(), weight, table).sum(), weight)[0]
    assert only.shape == weight.shape, "gradients of the weight alone"


@pytest.mark.parametrize("name", CONVS)
def test_sums_are_float32(name: str) -> None:
    """One tap adds 256, the others 0.9 each: bfloat16 sums would lose every one of them."""
    table = torch.arange(9)[None].repeat(3, 1)
    features = torch.tensor([[256.0], *[[0.9]] * 8]).bfloat16()
    out = load("sparse_conv2d", name)(features, torch.ones(9, 1, 1).bfloat16(), table)
    assert torch.equal(out, torch.full((3, 1), 256 + 8 * float(features[1, 0])).bfloat16())


@pytest.mark.parametrize("name", CONVS)
def test_shapes_that_do_not_fit_are_named(name: str) -> None:
    conv = load("sparse_conv2d", name)
    with pytest.raises(ValueError, match="4 channels"):
        conv(torch.zeros(2, 4), torch.zeros(9, 3, 5), torch.zeros(2, 9, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"\[K, C, D\]"):
        conv(torch.zeros(2, 4), torch.zeros(4, 5), torch.zeros(2, 9, dtype=torch.int32))
    with pytest.raises(ValueError, match="integers"):
        submanifold_map(torch.zeros(3, 4, dtype=torch.int32))
    with pytest.raises(ValueError, match="size"):
        strided_map(torch.zeros(3, 3, dtype=torch.int32), bounds="size")


# -- the selector ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(6, 9), (12, 18), (17, 16), (4, 5), (1, 1), (30, 7)])
@pytest.mark.parametrize("name", SELECTS)
def test_selection_is_that_of_the_upsampled_scores(name: str, size: tuple[int, int]) -> None:
    args, _ = registry.op("entropy_select").example("cpu", torch.float32)
    large = F.interpolate(args[0], size=size, mode="nearest")
    p = large.softmax(1)
    entropy = -(p * p.clamp(min=1e-5).log()).sum(1)
    for scores, last in ((args[0], False), (args[0].permute(0, 2, 3, 1), True)):
        found, small = load("entropy_select", name)(scores, 0.3, size, last)
        assert torch.equal(found, (entropy > 0.3).nonzero().int()) and found.is_contiguous() and small.shape == (2, 6, 9)


def test_nearest_index_is_that_of_interpolate() -> None:
    for source in (1, 3, 7, 50, 640):
        for target in (1, 2, 9, 64, 1024):
            expected = F.interpolate(torch.arange(float(source))[None, None], size=target, mode="nearest")[0, 0].long()
            assert torch.equal(nearest_index(source, target), expected)


@pytest.mark.parametrize("name", SELECTS)
def test_threshold_is_strict_and_the_clamp_inside_the_logarithm(name: str) -> None:
    select = load("entropy_select", name)
    even = torch.zeros(1, 4, 1, 1)
    entropy = float(select(even, 0.0)[1])
    assert entropy == pytest.approx(torch.log(torch.tensor(4.0)).item(), rel=1e-6)
    assert select(even, entropy)[0].shape == (0, 3) and select(even, entropy - 1e-3)[0].tolist() == [[0, 0, 0]]
    sure = torch.tensor([100.0, 0.0, 0.0, 0.0]).reshape(1, 4, 1, 1)
    assert float(select(sure, 0.0)[1]) < 1e-30, "p = 0 contributes nothing"
    rare = torch.tensor([0.0, -13.0]).reshape(1, 2, 1, 1)
    p = rare.flatten().double().softmax(0)
    expected = -(p[0] * p[0].log() + p[1] * torch.log(torch.tensor(1e-5, dtype=torch.float64)))
    assert float(select(rare, 0.0)[1]) == pytest.approx(float(expected), rel=1e-2), "without the clamp: an eighth more"


def test_coordinates_are_row_major_memory() -> None:
    found = coordinates_of(torch.ones(2, 3, 4), 0.5)
    assert found.stride() == (3, 1) and found.dtype == torch.int32 and torch.equal(found, torch.cartesian_prod(*map(torch.arange, (2, 3, 4))).int())


# -- reference numbers -----------------------------------------------------------------------------------------------------------------


def golden(case: str) -> tuple[dict[str, Tensor], dict]:
    safetensors = pytest.importorskip("safetensors.torch")
    return safetensors.load_file(GOLDEN / case / "io.safetensors"), json.loads((GOLDEN / case / "config.json").read_text())


@pytest.mark.golden
@pytest.mark.skipif(not GOLDEN.is_dir(), reason="reference fixtures (ZOO_GOLDEN) are not here")
@pytest.mark.parametrize("name", CONVS)
def test_golden_primitives(name: str) -> None:
    io, config = golden("sparse-conv-layout")
    conv, coordinates = load("sparse_conv2d", name), io["coords"][:, :3].contiguous()
    same = submanifold_map(coordinates)
    coarse, table = strided_map(coordinates)
    assert torch.equal(coarse, io["down.coords"][:, :3]) and coarse.shape[0] == config["n_down_outputs_upstream"]
    by_size = strided_map(coordinates, (config["height"], config["width"]), config["batch"], bounds="size")[0]
    assert by_size.shape[0] == config["n_down_outputs_if_bounded_by_image"]
    down = conv(io["feats"], io["down.kernel"], table)
    up = conv(io["down.out"], io["up.kernel"], inverse_map(table, coordinates.shape[0]))
    for out, key in ((conv(io["feats"], io["subm.kernel"], same), "subm.out"), (down, "down.out"), (up, "up.out")):
        assert float((out - io[key]).abs().max()) < 1e-5, key


@pytest.mark.golden
@pytest.mark.skipif(not GOLDEN.is_dir(), reason="reference fixtures (ZOO_GOLDEN) are not here")
def test_golden_levels() -> None:
    io, config = golden("sparse-unet")
    first = io["coords"][:, :3].contiguous()
    second, _ = strided_map(first)
    third, _ = strided_map(second)
    assert [first.shape[0], second.shape[0], third.shape[0]] == config["points_per_level"]
    assert torch.equal(second, io["tapcoords.net.1.4.1.2"][:, :3]) and torch.equal(third, io["tapcoords.net.1.4.1.3.4.1.2"][:, :3])


@pytest.mark.golden
@pytest.mark.skipif(not GOLDEN.is_dir(), reason="reference fixtures (ZOO_GOLDEN) are not here")
@pytest.mark.parametrize("name", SELECTS)
def test_golden_selector(name: str) -> None:
    io, config = golden("entropy-selector")
    for threshold in config["thresholds"]:
        found, entropy = load("entropy_select", name)(io["logits"], threshold, None, True)
        assert float((entropy - io["entropy"]).abs().max()) < 1e-6
        assert torch.equal(found, io[f"indices@{threshold}"])
        logs = load("entropy_select", name)(io["log_probs"], threshold, None, True)[0]
        assert torch.equal(logs, io[f"mask_from_log_probs@{threshold}"].bool().nonzero().int())
