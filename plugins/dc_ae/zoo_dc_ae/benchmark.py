"""Encode and decode against diffusers' ``AutoencoderDC``: same weights, same inputs, one process, calls in turns.

``zoo bench dc-ae-vs-diffusers`` runs all cells, ``python benchmarks/dc_ae_vs_diffusers.py --sizes 512 --dtypes float32`` a choice.  A cell's peak is the memory
that one call adds at its highest point (weights not counted), measured on the warm-up call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from zoo_core.bench import peak_bytes, time_interleaved
from zoo_core.errors import MissingDependencyError

if TYPE_CHECKING:
    import torch

    from zoo_core.bench import BenchContext
    from zoo_dc_ae.model import Autoencoder

MODEL = "dc-ae-f32c32-sana-1.1"


def diffusers_twin(model: Autoencoder) -> torch.nn.Module:
    """``AutoencoderDC`` with its own copy of the same weights, in its own memory format."""
    import torch

    try:
        from diffusers import AutoencoderDC
    except ImportError as error:
        raise MissingDependencyError("this benchmark compares with diffusers", fix="pip install 'zoo-dc-ae[benchmark]'") from error
    from zoo_dc_ae.layouts import diffusers_keymap
    from zoo_dc_ae.published import to_diffusers

    data = to_diffusers(model.config)
    data.pop("_class_name")
    with torch.device("meta"):
        twin = AutoencoderDC(**data)
    state = {key: value.detach().contiguous() for key, value in model.network.state_dict().items()}
    view = diffusers_keymap(model.config).inverse().apply(state)
    twin.load_state_dict({key: view.get(key).contiguous() for key in view}, assign=True)
    return twin.eval()


def measure(
    context: BenchContext, *, sizes: Sequence[int] = (512, 1024), dtypes: Sequence[str] = ("float32", "bfloat16"), model: str = MODEL, rounds: int | None = None
) -> list[dict[str, Any]]:
    """One row per (dtype, size, direction); cells that no longer fit the time budget are left out and logged."""
    import torch

    from zoo_core.loading import load

    rows: list[dict[str, Any]] = []
    generator = torch.Generator().manual_seed(context.seed)
    for dtype in dtypes:
        ours = load(model, weights="random", device=str(context.device), dtype=dtype, seed=context.seed)
        theirs: Any = diffusers_twin(ours)
        for size in sizes:
            image = (torch.rand((1, 3, size, size), generator=generator) * 2 - 1).to(device=context.device, dtype=ours.dtype)
            with torch.no_grad():
                if context.left <= 0:
                    context.log(f"{dtype} {size}: no time left")
                    continue
                rows += _cells(context, ours, theirs, image, f"{dtype} {size}", rounds)
        del ours, theirs
    return rows


def _cells(context: BenchContext, ours: Autoencoder, theirs: Any, image: torch.Tensor, label: str, rounds: int | None) -> list[dict[str, Any]]:
    import torch

    latents = theirs.encode(image).latent
    pairs: dict[str, tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor]]] = {
        "encode": (lambda: ours.encode(image, tiling="off"), lambda: theirs.encode(image).latent),
        "decode": (lambda: ours.decode(latents, tiling="off"), lambda: theirs.decode(latents).sample),
    }
    rows = []
    for what, (one, other) in pairs.items():
        results: dict[str, torch.Tensor] = {}
        peaks = {}
        for name, function in (("ours", one), ("other", other)):
            keep = partial(_keep, results, name, function)
            peaks[f"{name}_peak_bytes"] = peak_bytes(keep, context.device)
        times = time_interleaved({"ours": one, "other": other}, repeats=rounds or context.repeats, warmup=0, device=context.device)
        row = context.row(f"{what} {label}", times, other="diffusers AutoencoderDC", threads=torch.get_num_threads(), **peaks)
        row["difference_std"] = float((results["ours"].float() - results["other"].float()).abs().max() / results["other"].float().std())
        rows.append(row)
        seconds = f"{row['ours_ms'] / 1000:.2f} s, diffusers {row['other_ms'] / 1000:.2f} s"
        context.log(f"{row['cell']}: {seconds}, ratio {row['ratio']:.2f}, processor time {row.get('cpu_ratio', 0):.2f}, peaks {peaks}")
    return rows


def _keep(results: dict[str, torch.Tensor], name: str, function: Callable[[], torch.Tensor]) -> None:
    results[name] = function()


def run(context: BenchContext) -> list[dict[str, Any]]:
    """Benchmark ``dc-ae-vs-diffusers``."""
    return measure(context)
