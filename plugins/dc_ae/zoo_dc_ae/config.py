"""Configuration of the DC-AE autoencoder.

One dataclass describes every published autoencoder and every size in between; OmegaConf checks overrides such as ``encoder.depths=[0,1,1]`` against it.
How the two published ``config.json`` forms map to it is the business of :mod:`zoo_dc_ae.published`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from zoo_core.errors import ConfigError

BLOCKS = ("res", "vit")
DOWNSAMPLES = ("conv", "pixel_unshuffle")
UPSAMPLES = ("interpolate", "pixel_shuffle")
NORMS = ("rms_norm", "batch_norm")
ACTIVATIONS = ("silu", "relu", "relu6", "gelu", "mish")


@dataclass
class CoderConfig:
    """One half of the autoencoder; every list has one entry per stage, from full resolution to the latent.

    Attributes:
        widths: Channels of the stage.
        depths: Number of blocks; only the first entry may be 0 (the resolution then already changes in the first/last convolution).
        blocks: ``"res"`` (two 3x3 convolutions) or ``"vit"`` (linear attention + gated convolutions).
        scales: Kernel sizes of the extra depthwise aggregations of the attention; ``[]`` for none, ``[5]`` in the models made for Sana.
        norms: ``"rms_norm"`` or ``"batch_norm"`` (the encoder always uses RMS norm).
        activations: Activation inside the residual blocks (the encoder always uses SiLU).
        resample: ``"conv"`` or ``"pixel_unshuffle"`` in the encoder, ``"interpolate"`` or ``"pixel_shuffle"`` in the decoder.
        latent_shortcut: Parameter-free shortcut around the convolution next to the latent.
        output_activation: Before the last convolution of the decoder (unused by the encoder).
    """

    widths: list[int] = field(default_factory=lambda: [128, 256, 512, 512, 1024, 1024])
    depths: list[int] = field(default_factory=lambda: [2, 2, 2, 3, 3, 3])
    blocks: list[str] = field(default_factory=lambda: ["res", "res", "res", "vit", "vit", "vit"])
    scales: list[list[int]] = field(default_factory=lambda: [[], [], [], [5], [5], [5]])
    norms: list[str] = field(default_factory=lambda: ["rms_norm"] * 6)
    activations: list[str] = field(default_factory=lambda: ["silu"] * 6)
    resample: str = "conv"
    latent_shortcut: bool = True
    output_activation: str = "relu"


def _sana_decoder() -> CoderConfig:
    return CoderConfig(depths=[3, 3, 3, 3, 3, 3], resample="interpolate")


@dataclass
class AutoencoderConfig:
    """DC-AE; the defaults are the f32c32 model made for Sana (paper section 3, fact sheet of the published checkpoints).

    Attributes:
        in_channels: Picture channels.
        latent_channels: Latent channels.
        head_dim: Channels per attention head.
        scaling_factor: Diffusion models see ``latent * scaling_factor``.
        encoder, decoder: The two halves.
        gradient_checkpointing: Recompute each block in the backward pass while training.
    """

    in_channels: int = 3
    latent_channels: int = 32
    head_dim: int = 32
    scaling_factor: float = 0.41407
    encoder: CoderConfig = field(default_factory=CoderConfig)
    decoder: CoderConfig = field(default_factory=_sana_decoder)
    gradient_checkpointing: bool = False

    @property
    def ratio(self) -> int:
        """Picture pixels per latent pixel along one side."""
        return 2 ** (len(self.encoder.widths) - 1)

    def check(self) -> AutoencoderConfig:
        """Raise :class:`~zoo_core.errors.ConfigError` when the parts do not fit together; returns self.

        >>> AutoencoderConfig().check().ratio
        32
        """
        for name, coder, resamples in (("encoder", self.encoder, DOWNSAMPLES), ("decoder", self.decoder, UPSAMPLES)):
            _check_coder(name, coder, resamples, self)
        if len(self.encoder.widths) != len(self.decoder.widths):
            raise ConfigError(
                f"encoder has {len(self.encoder.widths)} stages but decoder has {len(self.decoder.widths)}", fix="give both the same number of stages"
            )
        return self


def _check_coder(name: str, coder: CoderConfig, resamples: tuple[str, ...], config: AutoencoderConfig) -> None:
    stages = len(coder.widths)
    if stages < 2:
        raise ConfigError(f"{name}.widths has {stages} entries", fix="give at least 2 stages")
    for key in ("depths", "blocks", "scales", "norms", "activations"):
        if len(getattr(coder, key)) != stages:
            raise ConfigError(
                f"{name}.{key} has {len(getattr(coder, key))} entries but {name}.widths has {stages}", fix=f"give one entry per stage in {name}.{key}"
            )
    for key, allowed in (("blocks", BLOCKS), ("norms", NORMS), ("activations", ACTIVATIONS)):
        for value in getattr(coder, key):
            if value not in allowed:
                raise ConfigError(f"{name}.{key} holds {value!r}", fix=f"choose from {', '.join(allowed)}")
    if coder.resample not in resamples:
        raise ConfigError(f"{name}.resample is {coder.resample!r}", fix=f"choose from {', '.join(resamples)}")
    if coder.output_activation not in ACTIVATIONS:
        raise ConfigError(f"{name}.output_activation is {coder.output_activation!r}", fix=f"choose from {', '.join(ACTIVATIONS)}")
    if any(depth < 0 or (depth == 0 and stage > 0) for stage, depth in enumerate(coder.depths)):
        raise ConfigError(f"{name}.depths is {list(coder.depths)}", fix="only the first stage may be empty; give at least one block to the others")
    for stage, (width, block) in enumerate(zip(coder.widths, coder.blocks)):
        if block == "vit" and width % config.head_dim:
            raise ConfigError(f"{name}.widths[{stage}] is {width}", fix=f"an attention stage needs a multiple of head_dim={config.head_dim}")
        if width <= 0:
            raise ConfigError(f"{name}.widths[{stage}] is {width}", fix="give a positive number of channels")
    if coder.latent_shortcut and coder.widths[-1] % config.latent_channels:
        raise ConfigError(
            f"{name}.widths[-1]={coder.widths[-1]} is not a multiple of latent_channels={config.latent_channels}",
            fix="choose fitting numbers, or latent_shortcut=false",
        )
