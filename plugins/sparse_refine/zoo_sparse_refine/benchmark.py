"""``sparse-refine-vs-dense``: the sparse step against dense convolutions, and a refined model against its baseline at full resolution, in one run.

| cell | ours | other |
|---|---|---|
| ``U-Net, same region budget`` | sparse U-Net on N points of a street scene | the same weights as conv2d on a rectangle of N pixels |
| ``U-Net, whole picture`` | the same | conv2d on all pixels: what selecting saves |
| ``U-Net, spconv`` | the same | the same points through spconv (where it is installed) |
| ``segment`` | ``segment`` at full size | the dense baseline at full resolution |

The first row is the honest price of sparseness: a rectangle of as many pixels needs no maps and no gathers.  Weights are random
except where a model has trained ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from zoo_core.bench import BenchContext
    from zoo_sparse_refine.config import RefinerConfig

SHARE = 0.118
SMALL = {"planes": [32, 64, 128], "reps": [1, 1, 1]}
"""The refiner that is measured on CPUs, and on a GPU beside the reference's."""


def points_of(height: int, width: int, share: float, seed: int, device: torch.device) -> Tensor:
    """int32 [N, 3]: the ``share`` of the pixels of a street scene with the largest differences to their neighbours (uncertain pixels lie along edges)."""
    from zoo_sparse_refine.claims import street

    grey = street(height, width, seed, torch.device("cpu"))[0].mean(0)
    edge = torch.zeros_like(grey)
    edge[:, 1:] += (grey[:, 1:] - grey[:, :-1]).abs()
    edge[1:] += (grey[1:] - grey[:-1]).abs()
    wide = torch.nn.functional.max_pool2d(edge[None, None], 5, 1, 2)[0, 0]
    count = round(share * wide.numel())
    chosen = torch.zeros(wide.numel(), dtype=torch.bool)
    chosen[wide.flatten().sort(descending=True, stable=True).indices[:count]] = True
    return chosen.view(1, height, width).nonzero().int().contiguous().to(device)


def rectangle(count: int, height: int, width: int) -> tuple[int, int]:
    """A rectangle of about ``count`` pixels with the proportions of the picture.

    >>> rectangle(1024 * 2048 // 4, 1024, 2048)
    (512, 1024)
    """
    scale = (count / (height * width)) ** 0.5
    return round(height * scale), round(width * scale)


def unet_rows(context: BenchContext, config: RefinerConfig, label: str, *, height: int, width: int) -> list[dict[str, Any]]:
    """The rows of one refiner configuration."""
    from zoo_sparse_refine.dense_twin import DenseTwin
    from zoo_sparse_refine.refiner import Refiner
    from zoo_sparse_refine.sparse.engines import make_engine

    torch.manual_seed(context.seed)
    refiner = Refiner(config).eval().to(context.device)
    network, twin = refiner.backbone, DenseTwin(refiner.backbone).eval()
    points = points_of(height, width, SHARE, context.seed, context.device)
    x = torch.randn(points.shape[0], config.in_channels, device=context.device)
    high, wide = rectangle(points.shape[0], height, width)
    region = torch.randn(1, config.in_channels, high, wide, device=context.device)
    picture = torch.randn(1, config.in_channels, height, width, device=context.device)

    def sparse(name: str) -> Any:
        return lambda: network(x, make_engine(name, points, network.depth, size=(height, width), images=1, bounds="size"))

    functions = {"ours": sparse("kernels"), "region": lambda: twin(region), "picture": lambda: twin(picture)}
    if _installed("spconv"):
        functions["spconv"] = sparse("spconv")
    with torch.inference_mode():
        times = context.time(functions, warmup=1, seconds=context.seconds / 3)
    facts = {"points": points.shape[0], "region": [high, wide], "parameters": sum(p.numel() for p in refiner.parameters()), "threads": torch.get_num_threads()}
    rows = [
        context.row(f"U-Net {label}, same region budget", times, rival="region", other="torch conv2d on a rectangle of as many pixels", **facts),
        context.row(f"U-Net {label}, whole picture", times, rival="picture", other="torch conv2d on the whole picture", **facts),
    ]
    if "spconv" in times:
        rows.append(context.row(f"U-Net {label}, spconv", times, rival="spconv", other="spconv 2.3 on the same points", **facts))
    return rows


def segment_row(context: BenchContext, model: str, *, height: int, width: int, **load_options: Any) -> dict[str, Any]:
    """``segment`` of a street scene against the dense baseline at full resolution; trained weights where the model has them, else random ones."""
    from zoo_core.loading import load
    from zoo_sparse_refine.claims import dense_labels, street

    handle: Any = load(model, device=str(context.device), **load_options)
    trained = load_options.get("weights") != "random"
    network, pixels = handle.network, street(height, width, context.seed + 1, context.device)
    options = {} if trained else {"top_k": SHARE}
    shares = []

    def refined() -> None:
        shares.append(network(pixels, **options).refined.selection.share)

    with torch.inference_mode():
        functions = {"ours": refined, "dense": lambda: dense_labels(network, pixels), "coarse": lambda: network(pixels, refine=False)}
        times = context.time(functions, warmup=1, seconds=context.seconds / 3)
    extra = {
        "refined_share": shares[-1],
        "coarse_ms": times["coarse"].median_ms,
        "weights": "trained" if trained else "random",
        "threads": torch.get_num_threads(),
    }
    return context.row(f"segment {model} {height} x {width}", times, rival="dense", other="the same baseline at full resolution", **extra)


def run(context: BenchContext) -> list[dict[str, Any]]:
    """Benchmark ``sparse-refine-vs-dense``."""
    from zoo_core.registry import get_registry
    from zoo_sparse_refine.config import RefinerConfig

    full = context.device.type == "cuda"
    height, width = 1024, 2048
    rows = unet_rows(context, RefinerConfig(**SMALL), "small", height=height, width=width)
    if full:
        rows += unet_rows(context, RefinerConfig(), "reference", height=height, width=width)
    names = [name for name in ("sparse-refine-streets",) if name in get_registry().models()]
    for name in names:
        if context.left > 0:
            rows.append(segment_row(context, name, height=height, width=width))
    if full and context.left > 0:
        rows.append(segment_row(context, "sparse-refine-hrnet-w48", height=height, width=width, weights="random"))
    for row in rows:
        context.log(f"{row['cell']}: {row['ours_ms']:.0f} ms, other {row['other_ms']:.0f} ms, ratio {row['ratio']:.2f}")
    return rows


def _installed(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None
