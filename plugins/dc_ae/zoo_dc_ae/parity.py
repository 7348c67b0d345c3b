"""Handlers of the recorded cases ``autoencoder``, ``uvit`` and ``dit``: any configuration, size and seed.

They load the case as a user would load a foreign checkpoint, call the handle's methods and compare.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from zoo_core.errors import ParityError
from zoo_core.parity import Check, ParityCase, Tolerance
from zoo_dc_ae.diffusion.model import make_sampler

if TYPE_CHECKING:
    from zoo_dc_ae.diffusion.model import LatentDiffusion
    from zoo_dc_ae.model import Autoencoder

FORWARD = Tolerance(std=1e-4)
SAMPLES = Tolerance(std=1e-3)
FILES = ("checkpoint.safetensors", "model.safetensors", "diffusion_pytorch_model.safetensors", "model.pt", "checkpoint.pt")


def _load(case: ParityCase, name: str, **options: Any) -> Any:
    from zoo_core.loading import load

    file = next((item for item in FILES if case.has(item)), None)
    if file is None:
        raise ParityError(f"case {case.path} holds no weights", tried=[", ".join(FILES)], fix="restore the file")
    return load(name, weights=str(case.file(file)), device="cpu", dtype="float32", **options)


def _indices(tensors: dict[str, torch.Tensor], pattern: str) -> list[str]:
    return sorted({match[1] for key in tensors if (match := re.fullmatch(pattern, key))}, key=int)


def autoencoder(case: ParityCase) -> Iterator[Check]:
    """``encode`` of every input, ``decode`` of every recorded latent, stage outputs, and diffusers' tiling."""
    model: Autoencoder = _load(case, "dc-ae-f32c32-sana-1.1")
    io = case.tensors("io.safetensors")
    for i in _indices(io, r"in(\d+)\.image"):
        taps: dict[str, torch.Tensor] = {}
        yield Check(f"out{i}.latent", model.encode(io[f"in{i}.image"], taps=taps), io[f"out{i}.latent"], FORWARD)
        yield Check(f"out{i}.reconstruction", model.decode(io[f"out{i}.latent"], taps=taps), io[f"out{i}.reconstruction"], FORWARD)
        for key in io:
            if key.startswith(f"tap{i}."):
                name = key.removeprefix(f"tap{i}.")
                if name not in taps:
                    raise ParityError(f"case {case.path}: the model has no stage {name!r}", fix="record the case again")
                yield Check(key, taps[name], io[key], FORWARD)
    if "tiled.image" in io:
        tile, stride = _tiling(case)
        options: dict[str, Any] = {"tiling": "upstream", "tile": tile, "stride": stride}
        yield Check("tiled.latent_untiled", model.encode(io["tiled.image"]), io["tiled.latent_untiled"], FORWARD)
        yield Check("tiled.reconstruction_untiled", model.decode(io["tiled.latent_untiled"]), io["tiled.reconstruction_untiled"], FORWARD)
        yield Check("tiled.latent_tiled", model.encode(io["tiled.image"], **options), io["tiled.latent_tiled"], FORWARD)
        yield Check("tiled.decode_tiled", model.decode(io["tiled.latent_untiled"], **options), io["tiled.decode_tiled"], FORWARD)


def _tiling(case: ParityCase) -> tuple[tuple[int, int], tuple[int, int]]:
    """The arguments of ``enable_tiling``: from ``case.json`` (key ``tiling``), else as the case's README quotes the call."""
    given = case.meta.get("tiling") or {}
    text = case.file("README.md").read_text(encoding="utf-8") if not given else ""
    values = []
    for name in ("tile_sample_min_height", "tile_sample_min_width", "tile_sample_stride_height", "tile_sample_stride_width"):
        match = re.search(rf"{name}\s*=\s*(\d+)", text)
        if name not in given and match is None:
            raise ParityError(f"case {case.path} does not say {name}", fix='write {"tiling": {...}} into case.json')
        values.append(int(given[name] if name in given else match[1]))  # type: ignore[index]
    return (values[0], values[1]), (values[2], values[3])


def uvit(case: ParityCase) -> Iterator[Check]:
    """Forward, guided sampling with DPM-Solver-fast, the schedule, and the guided velocity of the flow variant."""
    model: LatentDiffusion = _load(case, "dc-ae-f32c32-in-1.0-uvit-s-in-512px", autoencoder=False)
    io = case.tensors("io.safetensors")
    x, t, labels = io["in.latent"], io["in.timestep"], io["in.label"]
    yield Check("out.eps", model.predict(x, t, labels), io["out.eps"], FORWARD)
    steps = int(case.json("config.json").get("num_inference_steps", 30))
    for key in io:
        if match := re.fullmatch(r"generate\.cfg([\d.]+)\.samples", key):
            samples = model.sample(io["generate.labels"], steps=steps, guidance=float(match[1]), noise=io["generate.noise"])
            yield Check(key, samples, io[key], SAMPLES)
        if match := re.fullmatch(r"usit\.forward_with_cfg([\d.]+)\.velocity", key):
            velocity = model.predict(x, t, io["usit.labels"][: len(x)], float(match[1]))
            yield Check(key, torch.cat([velocity, velocity]), io[key], FORWARD)
    if "schedule.timesteps" in io:
        sampler: Any = make_sampler(model.config)
        yield Check("schedule.timesteps", torch.tensor(sampler.plan(len(io["schedule.timesteps"]) - 1).grid), io["schedule.timesteps"], FORWARD, any_dtype=True)
        yield Check("schedule.log_alpha", torch.from_numpy(sampler.schedule.log_alpha), io["schedule.log_alpha"], FORWARD, any_dtype=True)


def dit(case: ParityCase) -> Iterator[Check]:
    """Forward with variance, guidance on the noise channels, and the respaced schedule."""
    model: LatentDiffusion = _load(case, "dc-ae-f32c32-in-1.0-dit-xl-in-512px", autoencoder=False)
    io = case.tensors("io.safetensors")
    x, t = io["in.latent"], io["in.timestep"]
    half, channels = len(x), model.config.in_channels
    yield Check("out.eps_sigma", model.predict(x, t, io["in.label"]), io["out.eps_sigma"], FORWARD)
    for key in io:
        if match := re.fullmatch(r"out\.cfg([\d.]+)", key):
            labels = io["in.cfg_labels"]
            out = model.predict(x, t, labels[:half], float(match[1]))
            yield Check(key, out, io[key][:half], FORWARD)
            yield Check(f"{key} (second half, noise)", out[:, :channels], io[key][half:, :channels], FORWARD)
            null = model.predict(x, t, labels[half:])
            yield Check(f"{key} (second half, variance)", null[:, channels:], io[key][half:, channels:], FORWARD)
    if "schedule.timestep_map" in io:
        plan: Any = make_sampler(model.config).plan(len(io["schedule.timestep_map"]))
        yield Check("schedule.timestep_map", torch.tensor(plan.timestep_map), io["schedule.timestep_map"])
        yield Check("schedule.alphas_cumprod", torch.from_numpy(plan.alphas_cumprod), io["schedule.alphas_cumprod"], FORWARD)
