"""Settings of the recipe ``dc-ae/autoencoder`` and the small network it trains by default."""

from __future__ import annotations

from dataclasses import dataclass, field

from zoo_core.errors import ConfigError
from zoo_core.training.config import TrainConfig
from zoo_dc_ae.config import AutoencoderConfig, CoderConfig


def emoji_autoencoder() -> AutoencoderConfig:
    """f32c32 with 4.9 million parameters: most of them at 8x8 and 4x4, where they cost little (at 128 px); no stage at full resolution."""
    blocks = ["res", "res", "res", "res", "vit", "vit"]
    widths, scales = [32, 32, 64, 128, 128, 256], [[] for _ in range(6)]
    norms, activations = ["rms_norm"] * 6, ["silu"] * 6
    common = {"blocks": blocks, "scales": scales, "norms": norms, "activations": activations}
    encoder = CoderConfig(widths=list(widths), depths=[0, 1, 1, 1, 1, 1], resample="pixel_unshuffle", **common)
    decoder = CoderConfig(widths=list(widths), depths=[0, 1, 1, 2, 2, 1], resample="interpolate", **common)
    return AutoencoderConfig(latent_channels=32, scaling_factor=1.0, encoder=encoder, decoder=decoder)


@dataclass
class LossConfig:
    """Weights of the reconstruction losses.

    Attributes:
        l1, l2: Mean absolute and mean squared error.
        detail: Mean absolute error of the levels of a Laplacian pyramid (edges at every scale): stands in for the perceptual loss of the paper, whose network
            weights cannot come with this package.
        lpips: Perceptual loss of torchmetrics; needs its network weights on this machine.
        trunk, trunk_limit: Penalty on stage outputs whose root mean square exceeds the limit.  Nothing in the architecture bounds the trunk; without this
            it grew to 1e5 within 1000 steps while the normalised branches stayed near 1, and the network had become linear.
        gan: Hinge loss of the patch critic (phase 3).
    """

    l1: float = 1.0
    l2: float = 1.0
    detail: float = 1.0
    lpips: float = 0.0
    trunk: float = 0.02
    trunk_limit: float = 3.0
    gan: float = 0.02


@dataclass
class AutoencoderTrainConfig(TrainConfig):
    """``zoo train dc-ae/autoencoder phase=1 data=emoji output=runs/ae``; the defaults are what ``dc-ae-emoji`` was trained with.

    Attributes:
        phase: 1 = everything at low resolution, reconstruction losses; 2 = only the layers next to the latent at high resolution; 3 = only the decoder's head
            at low resolution with a critic (paper, decoupled high-resolution adaptation).
        data: ``emoji`` (built from npm packages) or a folder of pictures.
        data_folder: Where the emoji set is kept (default: user cache).
        size: Side of the training pictures in pixels; a multiple of the ratio.  Phase 2 wants a larger one than phase 1.
        low_size: In phase 2 every second batch has this size (0: none), so that the low resolution is not forgotten; in phase 1 the first ``low_steps`` steps.
        low_steps: Phase 1 begins with that many cheap steps at ``low_size``.
        init: What to start from (phases 2 and 3 need it): a run folder, a checkpoint or safetensors file of ``model``, or an autoencoder that ``zoo.load``
            takes by name or folder, whose configuration then replaces ``model``.
        model: The network.
        loss: Loss weights.
        optimiser: ``muon`` (with AdamW for vectors) or ``adamw``.
        decay: Share of the steps, at the end, in which the learning rate falls linearly to ``final_lr`` (with ``schedule=constant``).
        colours: Share of pictures whose colour channels are permuted.
        backgrounds: Share of pictures on a random plain background instead of white.
        compile_norms: Compile the channel norms only (on a CPU they cost a quarter of a step; whole-network compilation is slower there).
        scope: What phase 3 tunes: the decoder's ``head`` (paper) or the whole ``decoder`` (as the published sana-1.1 weights differ from sana-1.0).
        latent_noise: Noise on the latents in phase 3, as a share of their deviation: a decoder that forgives the errors of a generator.
        critic_lr, critic_start: Learning rate of the critic, and the step at which its loss enters (phase 3).
    """

    phase: int = 1
    data: str = "emoji"
    data_folder: str = ""
    size: int = 128
    low_size: int = 64
    low_steps: int = 1400
    init: str = ""
    model: AutoencoderConfig = field(default_factory=emoji_autoencoder)
    loss: LossConfig = field(default_factory=LossConfig)
    optimiser: str = "muon"
    decay: float = 0.3
    colours: float = 0.15
    backgrounds: float = 0.2
    compile_norms: bool = False
    scope: str = "head"
    latent_noise: float = 0.0
    critic_lr: float = 2e-4
    critic_start: int = 100
    output: str = "runs/dc-ae"
    steps: int = 2100
    precision: str = "bfloat16"
    lr: float = 2e-3
    warmup: int = 100
    ema: float = 0.998
    clip_grad: float = 1.0
    parallel: str = "replicate"
    save_every: int = 500
    eval_every: int = 500

    def validate(self) -> None:
        """Also: phase, optimiser, sizes, and a start for phases 2 and 3."""
        TrainConfig.validate(self)
        self.require(self.phase in (1, 2, 3), "phase", "1, 2 or 3")
        self.require(self.scope in ("head", "decoder"), "scope", "head or decoder")
        self.require(self.optimiser in ("muon", "adamw"), "optimiser", "muon or adamw")
        self.require(0 <= self.decay <= 1, "decay", "a fraction in [0, 1]")
        ratio = self.model.ratio
        self.require(self.size > 0 and self.size % ratio == 0, "size", f"a multiple of {ratio}")
        self.require(self.low_size % ratio == 0 and self.low_size <= self.size, "low_size", f"a multiple of {ratio} up to size, or 0")
        if self.phase > 1 and not self.init:
            raise ConfigError(f"phase {self.phase} goes on from trained weights", fix="init=<run folder of the phase before>")
