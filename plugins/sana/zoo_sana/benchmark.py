"""Benchmark: Sana-0.6B shapes against diffusers with the same weights, in one process, measured in turn."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo_core.bench import BenchContext

LAYERS = int(os.environ.get("ZOO_BENCH_LAYERS", "28"))
"""Blocks of the transformer; fewer make a quick run (the cell's name says so)."""


def run(context: BenchContext) -> list[dict[str, Any]]:
    """Rows: one guided denoise step (two branches) at 512 and 1024 px, and a whole guided 20-step run at 512 px without text encoding and decoding."""
    import torch
    from diffusers import SanaTransformer2DModel

    from zoo_core.bench import peak_bytes
    from zoo_core.checkpoint import DictSource, load_into
    from zoo_core.errors import MissingDependencyError
    from zoo_sana.binding import bind
    from zoo_sana.config import TransformerConfig, to_diffusers
    from zoo_sana.layouts import diffusers_keymap
    from zoo_sana.transformer import SanaTransformer

    if SanaTransformer2DModel is None:
        raise MissingDependencyError("the benchmark compares with diffusers", fix="pip install diffusers")
    config = TransformerConfig(layers=LAYERS)
    dtype = torch.bfloat16
    device = context.device
    settings = {k: v for k, v in to_diffusers(config).items() if k != "_class_name"}
    torch.manual_seed(context.seed)
    other = SanaTransformer2DModel(**settings).to(device, dtype).eval()
    with torch.device("meta"):
        ours = SanaTransformer(config)
    load_into(ours, DictSource(other.state_dict()), keymap=diffusers_keymap(config), device=str(device))
    ours.eval()
    bind(ours)
    rows = []
    words = 40
    text = torch.randn(2, 300, config.caption_channels, device=device, dtype=dtype)
    mask = torch.zeros(2, 300, dtype=torch.long, device=device)
    mask[0, :1] = 1
    mask[1, :words] = 1
    with torch.inference_mode():
        caption = ours.caption(text[:, :words], mask[:, :words])
        for pixels in (512, 1024):
            latents = torch.randn(1, 32, pixels // 32, pixels // 32, device=device)
            times = torch.tensor([500.0], device=device)

            def theirs(latents: Any = latents, times: Any = times) -> Any:
                batch = latents.repeat(2, 1, 1, 1).to(dtype)
                return other(batch, encoder_hidden_states=text, timestep=times.expand(2), encoder_attention_mask=mask, return_dict=False)[0]

            def mine(latents: Any = latents, times: Any = times) -> Any:
                return ours(latents.repeat(2, 1, 1, 1), caption, times)

            error = (theirs().float() - mine().float()).abs().max().item()
            measured = context.time({"ours": mine, "other": theirs})
            peaks = {"ours_peak_bytes": peak_bytes(mine, device), "other_peak_bytes": peak_bytes(theirs, device)}
            rows.append(
                context.row(
                    f"denoise step {pixels} px, {LAYERS} blocks, bf16, two branches",
                    measured,
                    other="diffusers SanaTransformer2DModel",
                    max_difference=error,
                    **peaks,
                )
            )
    rows.append(_whole_run(context, ours, other, text, mask, words))
    return rows


def _whole_run(context: BenchContext, ours: Any, other: Any, text: Any, mask: Any, words: int) -> dict[str, Any]:
    """Twenty guided steps at 512 px with each library's own scheduler; the two runs take turns step by step, so that drift of the machine hits both alike."""
    import torch
    from diffusers import DPMSolverMultistepScheduler

    from zoo_core.bench import summary
    from zoo_core.samplers import FlowDPMSolver

    steps = 20
    start = torch.randn(1, 32, 16, 16, generator=torch.Generator().manual_seed(context.seed)).to(context.device)

    def mine() -> Iterator[Any]:
        caption = ours.caption(text[:, :words], mask[:, :words])
        plan = FlowDPMSolver(3.0).plan(steps, device=start.device)
        x = plan.start(start)
        for i in range(plan.evaluations):
            u, c = ours(x.repeat(2, 1, 1, 1), caption, plan.model_time(i)[None]).float().chunk(2)
            x = plan.advance(x, u + 4.5 * (c - u), i)
            yield x

    def theirs() -> Iterator[Any]:
        scheduler = DPMSolverMultistepScheduler(flow_shift=3.0, use_flow_sigmas=True, prediction_type="flow_prediction")
        scheduler.set_timesteps(steps, device=start.device)
        x = start
        for t in scheduler.timesteps:
            batch = x.repeat(2, 1, 1, 1).to(text.dtype)
            out = other(batch, encoder_hidden_states=text, timestep=t.expand(2), encoder_attention_mask=mask, return_dict=False)[0]
            u, c = out.float().chunk(2)
            x = scheduler.step(u + 4.5 * (c - u), t, x, return_dict=False)[0]
            yield x

    runs = {"ours": mine(), "other": theirs()}
    wall, busy = dict.fromkeys(runs, 0.0), dict.fromkeys(runs, 0.0)
    last: dict[str, Any] = {}
    with torch.inference_mode():
        for number in range(steps):
            for name in ("ours", "other") if number % 2 == 0 else ("other", "ours"):
                begin, spent = time.perf_counter(), time.process_time()
                last[name] = next(runs[name])
                if context.device.type == "cuda":
                    torch.cuda.synchronize()
                wall[name] += (time.perf_counter() - begin) * 1000
                busy[name] += (time.process_time() - spent) * 1000
    difference = float((last["ours"] - last["other"]).abs().max() / last["other"].std())
    measured = {name: summary([wall[name]], [busy[name]]) for name in runs}
    return context.row(
        f"20 guided steps 512 px, {LAYERS} blocks, bf16",
        measured,
        other="diffusers SanaTransformer2DModel + DPMSolverMultistepScheduler",
        max_difference_in_std=difference,
    )
