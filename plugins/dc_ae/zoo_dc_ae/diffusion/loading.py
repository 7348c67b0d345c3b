"""Builder of the class-conditional diffusion models."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from zoo_core.checkpoint import init_random, load_into
from zoo_core.errors import CheckpointError, ConfigError
from zoo_dc_ae import layouts
from zoo_dc_ae.autoencoder import DCAE
from zoo_dc_ae.diffusion.config import DiffusionConfig, from_original
from zoo_dc_ae.diffusion.dit import DiT
from zoo_dc_ae.diffusion.model import LatentDiffusion
from zoo_dc_ae.diffusion.uvit import UViT
from zoo_dc_ae.loading import _config_beside, check_options, finish, load_autoencoder, open_weights

if TYPE_CHECKING:
    from zoo_core.checkpoint import TensorSource
    from zoo_core.interfaces.weights import BuildRequest


def _config(request: BuildRequest, source: TensorSource) -> DiffusionConfig:
    own: DiffusionConfig = request.config
    data: dict[str, Any] = request.weights.config or _config_beside(request.weights)
    if data and ("model" in data or "name" in data):
        return from_original(data, base=own)
    if data.get("model_name") and data["model_name"] != request.spec.name and request.registry is not None:
        request.report.warnings.append(f"config.json names {data['model_name']!r}; loading as {request.spec.name!r}")
    return own


def network_of(config: DiffusionConfig) -> torch.nn.Module:
    """The bare network of a configuration."""
    return (UViT if config.network == "uvit" else DiT)(config)


def build_diffusion(request: BuildRequest) -> LatentDiffusion:
    """Builder of every model with the task ``class-to-image``.

    The autoencoder comes from the same file (``autoencoder.*``), or by name with the option ``autoencoder="dc-ae-f32c32-in-1.0"``, or not at all with
    ``autoencoder=False`` (latents only).  Other options: those of the autoencoder's builder.
    """
    check_options(request, ("autoencoder",))
    dtype = request.dtype_for("diffusion_model", torch.float32)
    source = None if request.weights.random else open_weights(request.weights)
    config: DiffusionConfig = request.config if source is None else _config(request, source)
    if request.options.get("gradient_checkpointing"):
        config = replace(config, gradient_checkpointing=True)
    config.check()
    if source is None:
        network = init_random(lambda: network_of(config), request.weights.seed, request.device, dtype)
    else:
        prefixed = [key for key in source if key.startswith("diffusion_model.")]
        if not prefixed and not any(key.startswith(("in_blocks.", "blocks.")) for key in source):
            raise CheckpointError(
                "the checkpoint holds no diffusion model",
                tried=[f"keys: {', '.join(list(source)[:4])}"],
                fix="give a file with diffusion_model.* keys, or load it as an autoencoder",
            )
        with torch.device("meta"):
            network = network_of(config)
        keymap = layouts.diffusion_keymap(config)
        load_into(network, source, keymap=keymap, dtype=dtype, device=request.device, component="diffusion_model", report=request.report)
        request.report.layout = layouts.DIFFUSION
    autoencoder = _autoencoder(request, config, source)
    if autoencoder is not None:
        config = replace(config, autoencoder=autoencoder.config)
    return LatentDiffusion(request.spec, config, network.eval(), autoencoder, request.report)


def _autoencoder(request: BuildRequest, config: DiffusionConfig, source: TensorSource | None) -> DCAE | None:
    wanted = request.options.get("autoencoder")
    if wanted is False:
        return None
    dtype = request.dtype_for("autoencoder", torch.float32)
    if isinstance(wanted, str):
        if request.registry is None:
            raise ConfigError("an autoencoder by name needs the registry", fix="load the model with zoo.load")
        handle = request.registry.build("autoencoder", wanted, device=request.device, dtype=dtype)
        if handle.latent_channels != config.in_channels:
            raise ConfigError(
                f"{wanted} has {handle.latent_channels} latent channels, the diffusion model {config.in_channels}", fix="choose the one it was trained on"
            )
        return handle.network
    if source is None:
        module = load_autoencoder(config.autoencoder.check(), None, seed=request.weights.seed, device=request.device, dtype=dtype)
    elif any(key.startswith("autoencoder.") for key in source):
        keymap = layouts.embedded_autoencoder_keymap(config.autoencoder)
        module = load_autoencoder(config.autoencoder, source, keymap=keymap, device=request.device, dtype=dtype, report=request.report)
    else:
        request.report.warnings.append("the file holds no autoencoder: only sample() works; pass autoencoder='dc-ae-...' to get pictures")
        return None
    finish(module, request)
    return module
