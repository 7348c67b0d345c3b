"""The sparse network against ordinary convolutions, the engines against one another, and masks that the reference crashes on."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor
from zoo_sparse_refine.config import RefinerConfig
from zoo_sparse_refine.dense_twin import DenseTwin
from zoo_sparse_refine.refiner import Refiner
from zoo_sparse_refine.sparse.engines import make_engine
from zoo_sparse_refine.unet import SparseUNet

from zoo_core.errors import ConfigError, InputError

ENGINES = ["kernels", pytest.param("spconv", marks=pytest.mark.skipif(find_spec("spconv") is None, reason="spconv is not installed"))]


def network(planes: tuple[int, ...] = (8, 12, 16), reps: tuple[int, ...] = (2, 1, 1), seed: int = 0) -> SparseUNet:
    """A network whose norms do something."""
    torch.manual_seed(seed)
    out = SparseUNet(3, list(reps), list(planes)).eval()
    for module in out.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return out


def points(share: float, images: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Clustered points."""
    noise = torch.rand(images, 1, (height + 3) // 4, (width + 3) // 4, generator=torch.Generator().manual_seed(seed))
    mask = torch.nn.functional.interpolate(noise, size=(height, width))[:, 0] < share
    return mask.nonzero().int().contiguous()


def run(net: SparseUNet, x: Tensor, where: Tensor, engine: str = "kernels", *, size: tuple[int, int], images: int, bounds: str) -> Tensor:
    with torch.inference_mode():
        return net(x, make_engine(engine, where, net.depth, size=size, images=images, bounds=bounds))


@pytest.mark.parametrize("size", [(33, 46), (40, 64), (7, 5), (31, 32)])
def test_with_all_pixels_it_is_an_ordinary_convolutional_network(size: tuple[int, int]) -> None:
    """An independent check of taps, strides, transposed convolutions and skips, also where the deepest level is empty."""
    net, images = network(), 2
    x = torch.randn(images, 3, *size)
    everything = torch.ones(images, *size).nonzero().int().contiguous()
    sparse = run(net, x.permute(0, 2, 3, 1).reshape(-1, 3), everything, size=size, images=images, bounds="size")
    with torch.inference_mode():
        dense = DenseTwin(net)(x).permute(0, 2, 3, 1).reshape(sparse.shape)
    assert dense.std() > 0.05
    torch.testing.assert_close(sparse, dense, atol=2e-6, rtol=1e-5)


@pytest.mark.skipif(find_spec("spconv") is None, reason="spconv is not installed")
@pytest.mark.parametrize("bounds", ["batch", "size"])
@pytest.mark.parametrize("threads", [1, 2])
def test_spconv_gives_the_same_numbers(bounds: str, threads: int) -> None:
    net, where = network(), points(0.3, 2, 45, 70)
    x = torch.randn(where.shape[0], 3)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        one, other = (run(net, x, where, name, size=(45, 70), images=2, bounds=bounds) for name in ("kernels", "spconv"))
    finally:
        torch.set_num_threads(before)
    assert one.std() > 0.05
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(find_spec("spconv") is None, reason="spconv is not installed")
def test_spconv_on_scattered_points_of_odd_sizes() -> None:
    """Last rows and columns that the bounds leave out, empty levels, single points."""
    net = network()
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        height, width, count = (int(torch.randint(low, high, (1,), generator=generator)) for low, high in ((3, 40), (3, 40), (1, 120)))
        columns = [torch.randint(0, limit, (count,), generator=generator) for limit in (2, height, width)]
        where = torch.stack(columns, 1).unique(dim=0).int()
        x = torch.randn(where.shape[0], 3, generator=generator)
        for bounds in ("batch", "size"):
            one, other = (run(net, x, where, name, size=(height, width), images=2, bounds=bounds) for name in ("kernels", "spconv"))
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("bounds", ["batch", "size"])
def test_few_points_or_none(engine: str, bounds: str) -> None:
    """No point, one, a row, a column, two corners: finite results of the right shape."""
    net = network()
    cases = [[], [(0, 0, 0)], [(0, 19, 23)], [(1, 4, c) for c in range(20)], [(0, r, 5) for r in range(20)], [(0, 0, 0), (1, 19, 23)]]
    for case in cases:
        where = torch.tensor(case, dtype=torch.int32).reshape(-1, 3)
        out = run(net, torch.randn(len(case), 3), where, engine, size=(20, 24), images=2, bounds=bounds)
        assert out.shape == (len(case), 8) and bool(out.isfinite().all())


def test_what_depends_on_batch_mates() -> None:
    """Bounds of the batch (the reference's rule) do, bounds of each image or of the picture's size do not."""
    net = network()
    first = points(0.3, 1, 24, 24, seed=1)
    second = torch.cat((torch.ones(40, 1), torch.randint(30, 44, (40, 2))), 1).int().unique(dim=0)
    both, x = torch.cat((first, second)), torch.randn(first.shape[0] + second.shape[0], 3)
    change = {}
    for bounds in ("batch", "image", "size"):
        alone = run(net, x[: first.shape[0]], first, size=(45, 45), images=1, bounds=bounds)
        together = run(net, x, both, size=(45, 45), images=2, bounds=bounds)[: first.shape[0]]
        change[bounds] = float((alone - together).abs().max())
    assert change["batch"] > 1e-3 and change["image"] < 1e-5 and change["size"] < 1e-5


def test_unknown_engines_and_shapes_are_refused() -> None:
    where = points(0.3, 1, 16, 16)
    with pytest.raises(ConfigError, match="torchsparse"):
        make_engine("torchsparse", where, 2, size=(16, 16), images=1, bounds="size")
    with pytest.raises(InputError, match="coordinates"):
        make_engine("kernels", where[:, :2], 2, size=(16, 16), images=1, bounds="size")
    if find_spec("spconv") is not None:
        with pytest.raises(ConfigError, match="each image"):
            make_engine("spconv", where, 2, size=(16, 16), images=1, bounds="image")


def _step(refiner: Refiner, threshold: float) -> tuple[dict[str, Tensor], Any]:
    torch.manual_seed(1)
    image, logits = torch.randn(2, 24, 32, 3), 3 * torch.randn(2, 24, 32, 5)
    return refiner(image, logits, threshold=threshold), logits


def test_training_with_no_point_and_with_one() -> None:
    """Batch norm over fewer than two points uses its running statistics; the coarse logits come back untouched."""
    refiner = Refiner(RefinerConfig(num_classes=5, planes=[8, 12], reps=[1, 1])).train()
    out, logits = _step(refiner, 10.0)
    assert torch.equal(out["logits/e/full"], logits) and out["logits/e/mask"].shape == (0, 5)
    out, logits = _step(refiner, 0.9)
    assert 2 < out["logits/e/mask"].shape[0] < 2 * 24 * 32
    keep = ~out["mask"]
    assert torch.equal(out["logits/e/full"][keep], logits[keep])
    out["logits/e/mask"].square().mean().backward()
    assert all(p.grad is not None for name, p in refiner.named_parameters())


def test_a_mask_of_one_pixel_trains() -> None:
    refiner = Refiner(RefinerConfig(num_classes=5, planes=[8, 12], reps=[1, 1])).train()
    logits = torch.zeros(1, 16, 16, 5)
    logits[..., 0] = 50.0
    logits[0, 3, 4] = 0.0
    out = refiner(torch.randn(1, 16, 16, 3), logits)
    assert out["mask"].sum() == 1
    out["logits/e/mask"].sum().backward()
    assert bool(out["logits/e/mask"].isfinite().all())
