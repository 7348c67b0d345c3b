"""The three training phases of DC-AE ("decoupled high-resolution adaptation", paper section 3.3) at any scale.

1. Low resolution, all weights, reconstruction losses only.
2. High resolution, only the layers next to the latent: closes the latent's generalisation gap.
3. Low resolution, only the decoder's head, with a GAN loss: repairs local detail and leaves the latent space alone.

The authors published neither code nor hyper-parameters; the structure is the paper's, the numbers are ours.

On one machine: ``zoo train dc-ae/autoencoder phase=1 output=runs/p1``; on several GPUs or cores: ``torchrun --nproc-per-node 2 -m zoo_core.cli train ...``.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo_core.errors import ConfigError
from zoo_core.training import Batches, Trainer, latest_checkpoint, load_weights
from zoo_core.training.state import TrainState
from zoo_dc_ae.autoencoder import DCAE
from zoo_dc_ae.layers import Downsample, RMSNorm2d, Upsample
from zoo_dc_ae.training import evaluate as measures
from zoo_dc_ae.training.config import AutoencoderTrainConfig
from zoo_dc_ae.training.data import Augment, compose, load_pictures
from zoo_dc_ae.training.losses import PatchCritic, critic_loss, make_lpips, reconstruction_loss, trunk_excess


def run(config: AutoencoderTrainConfig) -> dict[str, Any]:
    """Train one phase; returns the trainer's summary with ``export``, a folder in the published diffusers layout (EMA weights)."""
    config.validate()
    torch.manual_seed(config.seed)
    started: dict[str, Tensor] | None = None
    if config.init:
        started = _start(config)
        config.validate()  # once more: the start may have brought a network of another ratio
    model = DCAE(config.model).to(memory_format=torch.channels_last)
    if started is not None:
        model.load_state_dict(started)
    if config.compile_norms:
        _compile_norms(model)
    model.requires_grad_(False)
    trained = select(model, config.phase, config.scope)
    for _, parameter in trained:
        parameter.requires_grad_(True)
    train, held_out = load_pictures(config)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    batches = Batches(
        {"pictures": train},
        config.batch_size,
        seed=config.seed,
        transform=Augment(config.colours, config.backgrounds, config.low_size if config.phase == 2 else 0),
        rank=rank,
        world_size=world,
    )
    modules: dict[str, nn.Module] = {"autoencoder": model}
    optimisers: dict[str, torch.optim.Optimizer] = {"autoencoder": _optimiser(config, model, trained)}
    if config.phase == 3 and config.loss.gan > 0:
        modules["critic"] = PatchCritic().to(memory_format=torch.channels_last)
        optimisers["critic"] = torch.optim.AdamW(modules["critic"].parameters(), config.critic_lr, betas=(0.5, 0.9), weight_decay=0.0)
    trainer = Trainer(
        config,
        modules,
        optimisers,
        _Step(config, model, modules.get("critic")),
        batches,
        lambda state: _evaluate(model, held_out, state, config),
        ema_modules=["autoencoder"],
        schedule=lambda step, name: stable_then_decay(step, config),
        forward_methods={"autoencoder": ("encode", "decode")},
        title=f"dc-ae phase {config.phase}",
    )
    result = trainer.run()
    if rank == 0:
        result["export"] = str(export(config, result["checkpoint"], train))
    return result


def select(model: DCAE, phase: int, scope: str = "head") -> list[tuple[str, nn.Parameter]]:
    """The parameters that a phase trains: all, those next to the latent, or the decoder's head (``scope="decoder"``: the whole decoder)."""
    if phase == 3 and scope == "decoder":
        return [(name, value) for name, value in model.named_parameters() if name.startswith("decoder.")]
    return list({1: model.named_parameters, 2: model.middle_parameters, 3: model.head_parameters}[phase]())


def stable_then_decay(step: int, config: AutoencoderTrainConfig) -> float:
    """Warm-up, constant, then linear to ``final_lr`` over the last ``decay`` of the steps."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    left = (config.steps - step) / max(config.decay * config.steps, 1)
    return warm * max(min(1.0, left), config.final_lr)


@torch.no_grad()
def export(config: AutoencoderTrainConfig, checkpoint: str, pictures: Tensor) -> Path:
    """Averaged weights in bfloat16 in the published diffusers layout, with the scaling factor that gives latents of ``pictures`` unit deviation; the folder."""
    from zoo_dc_ae.loading import save_autoencoder

    model = DCAE(config.model).eval()
    model.load_state_dict(load_weights(checkpoint, "autoencoder"))
    if config.phase < 3 or config.model.scaling_factor == 1.0:  # phase 3 leaves the latents alone, and with them a factor that is known
        some = pictures[:: max(len(pictures) // 512, 1)]
        latents = torch.cat([model.encode(compose(part)) for part in some.split(32)])
        config.model.scaling_factor = round(1.0 / float(latents.std()), 5)
    folder = Path(config.output) / "export"
    save_autoencoder(model.to(torch.bfloat16), folder)
    return folder


class _Step:
    """Losses of one batch."""

    def __init__(self, config: AutoencoderTrainConfig, model: DCAE, critic: nn.Module | None) -> None:
        self.config, self.model, self.critic = config, model, critic
        self.lpips = None

    def __call__(self, images: Tensor, state: TrainState) -> dict[str, Tensor]:
        config = self.config
        if config.phase == 1 and config.low_size and state.step < config.low_steps:
            images = F.interpolate(images, size=(config.low_size, config.low_size), mode="area").contiguous(memory_format=torch.channels_last)
        if config.loss.lpips and self.lpips is None:
            self.lpips = make_lpips(state.device)
        if config.phase == 3:
            return self._decoder_only(images, state)
        taps: dict[str, Tensor] = {}
        latents = self.model.encode(images, taps)
        parts = reconstruction_loss(self.model.decode(latents, taps), images, config.loss, self.lpips)
        stream = trunk_excess([latents, *taps.values()], config.loss.trunk_limit)
        return {**parts, "loss": parts["loss"] + config.loss.trunk * stream, "trunk": stream.detach()}

    def _decoder_only(self, images: Tensor, state: TrainState) -> dict[str, Tensor]:
        config = self.config
        with torch.no_grad():
            latents = self.model.encode(images)
            if config.latent_noise:
                latents = latents + config.latent_noise * latents.std() * torch.randn(latents.shape, generator=state.generator, device=latents.device)
        output = self.model.decode(latents)
        parts = reconstruction_loss(output, images, config.loss, self.lpips)
        if self.critic is None:
            return parts
        total = parts.pop("loss")
        if state.step >= config.critic_start:
            total = total - config.loss.gan * self.critic(output).float().mean()
        against = critic_loss(self.critic(images), self.critic(output.detach()))
        return {"loss/autoencoder": total, "loss/critic": against, **parts}


def _optimiser(config: AutoencoderTrainConfig, model: DCAE, trained: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
    """Muon for the branches; a fifth of its rate for the trunk (resampling and border convolutions), which no norm follows; four times for norms and biases.

    The trunk needs the small rate: its scale is free (the decoder ends in a norm), and when it grows the normalised branches fade and the network turns linear.
    """
    parameters = [p for _, p in trained]
    if config.optimiser == "adamw":
        return torch.optim.AdamW(parameters, config.lr, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    from zoo_core.training.muon import Muon

    trunk_convolutions = {m.conv for m in model.modules() if isinstance(m, Downsample | Upsample)}
    trunk_convolutions |= {model.encoder.conv_out, model.decoder.conv_in, model.encoder.conv_in, model.decoder.conv_out}
    trunk = {id(p) for m in trunk_convolutions for p in m.parameters() if p.ndim == 4}
    thin = {id(p) for p in parameters if p.ndim == 4 and min(p.shape[0], p.shape[1]) <= 3}  # picture channels, depthwise
    shared = int(os.environ.get("WORLD_SIZE", 1)) > 1 and config.parallel == "replicate"
    optimiser = Muon(
        [p for p in parameters if id(p) not in trunk - thin], adamw=[p for p in parameters if id(p) in thin], lr=config.lr, weight_decay=0.05, shared=shared
    )
    optimiser.param_groups[-1]["lr"] = 4 * config.lr
    slow = [p for p in parameters if id(p) in trunk - thin]
    if slow:
        optimiser.add_param_group({"params": slow, "muon": True, "weight_decay": 0.05, "lr": 0.2 * config.lr})
    return optimiser


def _compile_norms(model: nn.Module) -> None:
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)  # one graph per shape
    for module in model.modules():
        if isinstance(module, RMSNorm2d):
            module.compile(dynamic=False)


def _evaluate(model: DCAE, held_out: Tensor, state: TrainState, config: AutoencoderTrainConfig) -> dict[str, float]:
    if state.rank:
        return {}
    real, made = measures.reconstruct_all(model, held_out, bfloat16=config.precision == "bfloat16")
    show = torch.arange(0, len(real), max(len(real) // 48, 1))[:48]
    measures.save_png(measures.sheet(real[show], made[show]), state.folder / "pictures" / f"step-{state.step:06d}.png")
    return {"psnr": float(measures.psnr(real, made).mean()), "ssim": measures.ssim(real, made)}


def _start(config: AutoencoderTrainConfig) -> dict[str, Tensor]:
    """Weights in float32 of a run, a checkpoint file, or an autoencoder that ``zoo.load`` knows; ``config.model`` takes what is known of its configuration."""
    from safetensors.torch import load_file

    source = Path(config.init)
    file = source if source.is_file() else source / "model.safetensors"
    if file.exists():
        found = load_file(file)
    elif latest_checkpoint(source) is not None:
        found = load_weights(source, "autoencoder")
        beside = source / "export" / "config.json"
        if beside.exists():
            config.model.scaling_factor = float(json.loads(beside.read_text(encoding="utf-8"))["scaling_factor"])
    else:
        handle = _autoencoder(config.init)
        config.model = replace(handle.config, gradient_checkpointing=config.model.gradient_checkpointing)
        found = handle.network.state_dict()
    return {key: value.float() for key, value in found.items()}


def _autoencoder(name: str) -> Any:
    from zoo_core.errors import ZooError
    from zoo_core.loading import load

    try:
        return load(name, device="cpu", dtype="float32", channels_last=False)
    except ZooError as error:
        raise ConfigError(
            f"init={name} is no run folder, no checkpoint file and no autoencoder of the zoo",
            tried=[str(error).splitlines()[0]],
            fix="init=<run folder, .safetensors file, or a name or folder that zoo.load takes>",
        ) from error
