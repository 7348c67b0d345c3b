"""The paper's speed-up: a refined model against the same network at full resolution, for every baseline at its full size and 1024 x 2048 pixels.

Weights are random: speed depends on shapes and on how many pixels are refined.  That share is set (top-k): 11.8 %, a guess from a default in the reference's
code; pictures are the generated street scenes, so that the selected pixels lie in clusters as those of a photograph do.  Both sides start from the same
pixels on the device and end with a class map at full size, in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo_core.bench import time_interleaved

if TYPE_CHECKING:
    from zoo_core.claims import ClaimContext
    from zoo_sparse_refine.pipeline import SparseRefineNetwork

SHARE = 0.118
"""Refined pixels / all pixels."""
PARTS = ("dense", "selector", "sparse", "write")


def street(height: int, width: int, seed: int, device: torch.device) -> Tensor:
    """One generated street scene as float32 [1, 3, H, W] in 0..255."""
    from zoo_sparse_refine.streets import make_scene

    scene = make_scene(seed, 0, height=height, width=width)
    return torch.from_numpy(scene.image.copy()).permute(2, 0, 1)[None].to(device=device, dtype=torch.float32)


def dense_labels(network: SparseRefineNetwork, pixels: Tensor) -> Tensor:
    """Class map uint8 [B, H, W] of the baseline alone at full resolution."""
    from zoo_sparse_refine.pipeline import normalise

    return network.baseline(normalise(pixels)).argmax(1).to(torch.uint8)


def speedup(context: ClaimContext, model: str, *, overrides: dict[str, Any] | None = None, height: int = 1024, width: int = 2048) -> dict[str, Any]:
    """Ratio of the times per picture (median of interleaved calls), with the parts of the refined one.

    Args:
        model: A model of this plugin; built with random weights.
        overrides, height, width: A smaller setting (tests).
    """
    from zoo_core.loading import load

    torch.manual_seed(context.seed)
    handle: Any = load(model, weights="random", seed=context.seed, device=str(context.device), overrides=overrides or {})
    network, device = handle.network, context.device
    pixels = street(height, width, context.seed, device)
    parts: list[dict[str, float]] = []
    seen: dict[str, Any] = {}

    def refined() -> None:
        out = network(pixels, top_k=SHARE)
        parts.append(out.milliseconds)
        seen.update(share=out.refined.selection.share, small=tuple(out.scores.shape[2:]))

    def dense() -> None:
        dense_labels(network, pixels)

    with torch.inference_mode():
        small = F.interpolate(pixels, size=(height // 4, width // 4))
        for warm in (lambda: network(small, top_k=SHARE), lambda: dense_labels(network, small)):
            warm()
        context.log(f"{model}: {height} x {width} on {device}, {handle.num_parameters / 1e6:.1f} M parameters")
        full = device.type == "cuda"
        functions = {"refined": refined, "dense": dense}
        times = time_interleaved(functions, repeats=20 if full else 2, warmup=3 if full else 0, seconds=context.seconds, device=device)
    ratio = times["dense"].median_ms / times["refined"].median_ms
    split = {name: sorted(row[name] for row in parts)[len(parts) // 2] for name in PARTS}
    row = {"what": model, "ours_ms": times["refined"].median_ms, "other_ms": times["dense"].median_ms, "ratio": ratio, "runs": times["dense"].n, **split}
    if times["refined"].cpu_ms and device.type == "cpu":
        row["cpu_ratio"] = times["dense"].cpu_ms / times["refined"].cpu_ms
    setting = {"size": [height, width], "baseline_size": list(seen["small"]), "refined_share": seen["share"], "dtype": "float32", "weights": "random"}
    setting |= {"threads": torch.get_num_threads(), "engine": network.refiner.engine, "parameters": handle.num_parameters}
    note = f"{split['dense']:.0f} ms dense + {split['selector']:.0f} ms selector + {split['sparse']:.0f} ms sparse of {row['ours_ms']:.0f} ms"
    note += f", dense at full size {row['other_ms']:.0f} ms; random weights, {100 * seen['share']:.1f} % refined"
    return {"value": ratio, "note": note, "rows": [row], "setting": setting}


def hrnet_w48(context: ClaimContext) -> dict[str, Any]:
    """FCN HRNet-W48."""
    return speedup(context, "sparse-refine-hrnet-w48")


def segformer_b5(context: ClaimContext) -> dict[str, Any]:
    """SegFormer-B5."""
    return speedup(context, "sparse-refine-segformer-b5")


def segnext_l(context: ClaimContext) -> dict[str, Any]:
    """SegNeXt-L (coarse at 640 x 1280)."""
    return speedup(context, "sparse-refine-segnext-l")


def mask2former_t(context: ClaimContext) -> dict[str, Any]:
    """Mask2Former with Swin-T."""
    return speedup(context, "sparse-refine-mask2former-t")


def mask2former_l(context: ClaimContext) -> dict[str, Any]:
    """Mask2Former with Swin-L."""
    return speedup(context, "sparse-refine-mask2former-l")
