"""Handlers of the recorded cases (kinds of the paper ``sana``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from zoo_core.parity import Check, ParityCase, Tolerance

TENSOR = Tolerance(std=1e-4)


def _load(case: ParityCase, **options: Any) -> Any:
    from zoo_core.loading import load

    return load("sana-0.6b-1024", weights=case.path, device="cpu", dtype="float32", **options)


@torch.no_grad()
def transformer(case: ParityCase) -> Iterator[Check]:
    """Forward passes with taps, with and without mask; few-step sampling where recorded."""
    io = case.tensors("io.safetensors")
    model = _load(case)
    net = model.transformer
    for i in range(sum(key.endswith(".latent") for key in io)):
        guidance = io.get(f"in{i}.guidance")
        arguments = (io[f"in{i}.latent"], io[f"in{i}.caption"], io[f"in{i}.timestep"])
        taps: dict[str, Any] = {}
        yield Check(f"out{i}.sample", net(*arguments, io[f"in{i}.mask"], guidance=guidance, taps=taps), io[f"out{i}.sample"], TENSOR)
        if f"out{i}.sample_no_mask" in io:
            yield Check(f"out{i}.sample_no_mask", net(*arguments, guidance=guidance), io[f"out{i}.sample_no_mask"], TENSOR)
        for key in (k for k in io if k.startswith(f"tap{i}.")):
            yield Check(key, taps[key.partition(".")[2]], io[key], TENSOR)
    for key in (k for k in io if k.startswith("sampling.n") and k.endswith(".final_latents")):
        yield from _few_steps(model, io, int(key.split(".")[1][1:]), key)


def _few_steps(model: Any, io: Any, steps: int, key: str) -> Iterator[Check]:
    from zoo_core.samplers import SCM

    text = (io["in0.caption"], io["in0.mask"])
    noise = iter(io[f"sampling.n{steps}.noise"])
    start = io["sampling.latents_init"]
    model._noise = lambda *a, **k: next(noise)  # the recorded draws instead of fresh ones
    size = tuple(side * model.autoencoder_ratio for side in start.shape[-2:])
    result = model.generate(
        ["x"] * len(start),
        text=text,
        latents=start,
        steps=steps,
        guidance=4.5,
        sampler=SCM(),
        height=size[0],
        width=size[1],
        binning=False,
        output="latent",
        seed=0,
    )
    del model._noise
    yield Check(key, result.latents, io[key], Tolerance(std=1e-3))


def schedulers(case: ParityCase) -> Iterator[Check]:
    """Samplers on the toy velocity field ``sin(1.3 x) + cos(t / 250) c``."""
    from zoo_core.samplers import SCM, FlowDPMSolver, FlowEuler

    io = case.tensors("io.safetensors")
    start, c = io["x_init"], io["c"]

    def field(x: Any, t: Any) -> Any:
        return torch.sin(1.3 * x) + torch.cos(torch.as_tensor(t, dtype=torch.float32) / 250) * c

    tolerance = Tolerance(abs=1e-5)
    for key in sorted(k for k in io if k.endswith(".samples")):
        name = key.removesuffix(".samples")
        kind, count, *rest = name.split(".")
        steps = int(count[1:])
        samples, extra = [], []
        if kind == "scm":
            plan = SCM().plan(steps)
            x = plan.start(start)
            yield Check(f"{name}.timesteps", torch.tensor(plan.angles), io[f"{name}.timesteps"], Tolerance(abs=1e-6))
            for i in range(steps):
                data = plan.denoised(x, field(x, plan.angles[i] * 1000 / 1.5708), i)
                extra.append(data)
                x = plan.renoise(data, i, io[f"{name}.noise"][i] if f"{name}.noise" in io else None)
                samples.append(x)
            yield Check(f"{name}.denoised", torch.stack(extra), io[f"{name}.denoised"], tolerance)
        else:
            shift = float(rest[0].removeprefix("shift")) if rest else 3.0
            flow: Any = (FlowDPMSolver(shift) if kind == "dpm" else FlowEuler(shift)).plan(steps)
            x = flow.start(start)
            yield Check(f"{name}.sigmas", torch.tensor(flow.sigmas), io[f"{name}.sigmas"], Tolerance(abs=1e-6))
            yield Check(f"{name}.timesteps", flow.timesteps, io[f"{name}.timesteps"], Tolerance(abs=1e-3) if kind == "euler" else Tolerance(exact=True))
            for i in range(steps):
                extra.append(field(x, flow.timesteps[i]))
                x = flow.advance(x, extra[-1], i)
                samples.append(x)
            if f"{name}.velocity" in io:
                yield Check(f"{name}.velocity", torch.stack(extra), io[f"{name}.velocity"], tolerance)
        yield Check(key, torch.stack(samples), io[key], tolerance)


@torch.no_grad()
def controlnet(case: ParityCase) -> Iterator[Check]:
    """Residuals of the control branch and their effect on the transformer."""
    from zoo_core.checkpoint import KeyMap, Rename, open_checkpoint
    from zoo_sana.config import from_published
    from zoo_sana.loading import controlnet_from, load_transformer

    io = case.tensors("io.safetensors")
    config = case.json("config.json")
    settings = case.meta.get("settings", {})
    strength = float(settings.get("conditioning_scale", 0.8))
    source = open_checkpoint(case.path / "checkpoint.safetensors")

    def part(prefix: str) -> Any:
        from zoo_core.checkpoint import DictSource

        keys = [key for key in source.keys() if key.startswith(prefix)]  # noqa: SIM118 - not a mapping
        return KeyMap([Rename(f"{prefix}{{x*}}", "{x*}")]).apply(DictSource({key: source.get(key) for key in keys}))

    net = load_transformer(from_published(config["transformer"]), part("transformer."))
    control = controlnet_from(part("controlnet."), from_published(config["controlnet"]))
    arguments = (io["latent"], io["caption"], io["timestep"])
    residuals = control.residuals(*arguments, io["control_latent"], io["mask"], strength=strength)
    for i, residual in enumerate(residuals):
        yield Check(f"residual{i}", residual, io[f"residual{i}"], TENSOR)
    yield Check("out.sample", net(*arguments, io["mask"], control=residuals), io["out.sample"], TENSOR)
    yield Check("out.sample_without_control", net(*arguments, io["mask"]), io["out.sample_without_control"], TENSOR)


def pipeline(case: ParityCase) -> Iterator[Check]:
    """Text features and whole runs through ``generate``."""
    io, notes = case.tensors("io.safetensors"), case.json("io.json")
    model = _load(case)
    prompts, lines = notes["prompts"], notes["complex_human_instruction"]
    tokens = int(notes.get("max_sequence_length", 300))
    model.text_encoder.tokens = tokens
    instruction = "\n".join(lines)
    cleaned = [prompt.lower().strip() for prompt in prompts]
    ids, mask = model.text_encoder.tokenise(cleaned, instruction)
    yield Check("text.input_ids", ids, io["text.input_ids"])
    yield Check("text.attention_mask", mask, io["text.attention_mask"])
    for name, (features, kept) in {
        "prompt": model.encode_text(prompts, instruction=lines),
        "negative": model.encode_text([notes["negative_prompt_default"]] * len(prompts), instruction=False),
    }.items():
        yield Check(f"text.{name}_embeds", features, io[f"text.{name}_embeds"], TENSOR)
        yield Check(f"text.{name}_mask", kept, io[f"text.{name}_mask"])
    features, kept = model.encode_text(prompts, instruction=False)
    recorded = io["text.no_instruction.prompt_embeds"]
    yield Check("text.no_instruction.prompt_embeds", features[:, : recorded.shape[1]], recorded, TENSOR)
    yield Check("text.no_instruction.prompt_mask", kept, io["text.no_instruction.prompt_mask"])
    yield from _runs(model, io, notes, prompts, lines)


def _runs(model: Any, io: Any, notes: Any, prompts: list[str], lines: list[str]) -> Iterator[Check]:
    start = io["run.latents_init"]
    base = {"height": notes["height"], "width": notes["width"], "guidance": notes["guidance_scale"], "instruction": lines, "binning": False}
    trail: list[Any] = []
    first = model.generate(
        prompts, latents=start, steps=notes["steps"], output="tensor", callback=lambda i, n, state: trail.append(state["latents"].clone()), **base
    )
    latents = Tolerance(std=1e-3)
    yield Check("run.latents_steps", torch.stack(trail), io["run.latents_steps"], latents)
    raw = model.autoencoder.decode(first.latents / model.autoencoder.scaling_factor)
    yield Check("run.decoded_raw", raw, io["run.decoded_raw"], latents)
    yield Check("run.image", first.info["tensor"], io["run.image"], Tolerance(abs=2e-3))
    one = {**base, "latents": start[:1], "output": "latent"}
    runs = notes["runs"]

    def settings(name: str) -> dict[str, Any]:
        data = runs.get(name, {})
        return {"steps": data.get("steps", 2), "guidance": data.get("guidance_scale", notes["guidance_scale"])}

    cases: dict[str, dict[str, Any]] = {
        "run_noguidance": settings("run_noguidance"),
        "run_negative": {**settings("run_negative"), "negative_prompt": notes["negative_prompt_custom"]},
        "run_no_instruction": {**settings("run_no_instruction"), "instruction": False},
        "run_default2": settings("run_default2"),
        "run_shared_mask": {**settings("run_shared_mask"), "null_mask": "shared"},
        "run_pag": {**settings("run_pag"), "pag_scale": runs.get("run_pag", {}).get("pag_scale", 2.0), "pag_blocks": _pag_blocks(runs.get("run_pag", {}))},
    }
    for name, options in cases.items():
        if f"{name}.final_latents" in io:
            result = model.generate(prompts[0], **{**one, **options})
            yield Check(f"{name}.final_latents", result.latents, io[f"{name}.final_latents"], latents)
    if "run_binned.image" in io:
        data = runs.get("run_binned", {})
        height, width = io["run_binned.image"].shape[-2:]
        steps, guidance = data.get("steps", 2), data.get("guidance_scale", notes["guidance_scale"])
        options = {**base, "height": height, "width": width, "binning": True, "steps": steps, "guidance": guidance}
        result = model.generate(prompts[0], latents=io["run_binned.latents_init"], output="tensor", **options)
        yield Check("run_binned.image", result.info["tensor"], io["run_binned.image"], Tolerance(abs=2e-3))


def _pag_blocks(data: Any) -> tuple[int, ...]:
    """Block numbers from names like ``transformer_blocks.1`` (default: block 1)."""
    if "pag_layer" in data:
        return (int(data["pag_layer"]),)
    named = data.get("pag_applied_layers") or ["transformer_blocks.1"]
    named = [named] if isinstance(named, str) else named
    return tuple(int("".join(c for c in str(name) if c.isdigit())) for name in named)
