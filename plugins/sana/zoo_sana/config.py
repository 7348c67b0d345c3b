"""Configuration of the linear diffusion transformer, and the two published forms of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo_core.errors import ConfigError


@dataclass
class TransformerConfig:
    """Shape of the transformer (Sana, arXiv 2410.10629; fact sheet section 3).

    Attributes:
        in_channels, out_channels: Latent channels in and velocity channels out.
        heads, head_dim: Linear self-attention; width = heads * head_dim.
        cross_heads: Heads of the softmax cross-attention (head size = width / cross_heads).
        layers: Blocks.
        caption_channels: Width of the text encoder.
        mlp_ratio: Hidden width of the Mix-FFN over the model's width.
        patch_size: Latent pixels per token side.
        sample_size: Side of the trained latent map in tokens (base of the position grid and choice of the size table).
        position_scale: None: no position signal at all; else the sin-cos grid is stretched onto [0, sample_size / position_scale).
        qk_norm: RMS norm of queries and keys over the full width, in both attentions.
        guidance_embed: The guidance scale is an input (few-step models).
        guidance_scale: Factor applied to the guidance before its embedding.
        timestep_scale: Factor of the time given by the sampler (many-step models).
        norm_eps, attention_eps, self_norm_eps, cross_norm_eps, caption_norm_eps: Epsilons.
        attention_bias: Bias of the self-attention's query, key, value.
        gradient_checkpointing: Recompute blocks in the backward pass.
    """

    in_channels: int = 32
    out_channels: int = 32
    heads: int = 36
    head_dim: int = 32
    cross_heads: int = 16
    layers: int = 28
    caption_channels: int = 2304
    mlp_ratio: float = 2.5
    patch_size: int = 1
    sample_size: int = 32
    position_scale: float | None = None
    qk_norm: bool = False
    guidance_embed: bool = False
    guidance_scale: float = 0.1
    timestep_scale: float = 1.0
    norm_eps: float = 1e-6
    attention_eps: float = 1e-15
    self_norm_eps: float = 1e-5
    cross_norm_eps: float = 1e-5
    caption_norm_eps: float = 1e-5
    attention_bias: bool = False
    gradient_checkpointing: bool = False

    @property
    def width(self) -> int:
        return self.heads * self.head_dim

    @property
    def hidden(self) -> int:
        """Hidden channels of the Mix-FFN."""
        return int(self.mlp_ratio * self.width)

    def check(self) -> TransformerConfig:
        """Raise :class:`ConfigError` for shapes that cannot be built."""
        for name in ("in_channels", "out_channels", "heads", "head_dim", "cross_heads", "layers", "caption_channels", "patch_size", "sample_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"TransformerConfig: {name}={getattr(self, name)}", fix=f"{name} >= 1", key=name)
        if self.width % self.cross_heads:
            raise ConfigError(
                f"TransformerConfig: width {self.width} is not a multiple of cross_heads={self.cross_heads}", fix="cross_heads=16", key="cross_heads"
            )
        if self.position_scale is not None and self.width % 4:
            raise ConfigError(
                f"TransformerConfig: a sin-cos grid needs a width that is a multiple of 4, not {self.width}", fix="position_scale=null", key="position_scale"
            )
        return self


@dataclass
class SanaConfig:
    """A pipeline: the transformer and what stands around it.

    Attributes:
        autoencoder: Registry name of the autoencoder (used when the weights' folder has no ``vae``).
        flow_shift: Time shift of the schedule.
        sampler: ``flow-dpm-solver``, ``flow-euler`` or ``scm``.
        text_tokens: Caption length in tokens.
        instruction: Put the complex human instruction in front of prompts.
        lowercase: Lower-case and strip prompts.
        control_blocks: Copied blocks of a ControlNet (0: none).
        text: Values of a ``Gemma2Config`` for randomly initialised pipelines.
    """

    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    autoencoder: str = "dc-ae-f32c32-sana-1.1"
    flow_shift: float = 3.0
    sampler: str = "flow-dpm-solver"
    text_tokens: int = 300
    instruction: bool = True
    lowercase: bool = True
    control_blocks: int = 0


def from_diffusers(data: Mapping[str, Any]) -> TransformerConfig:
    """From the ``config.json`` of a published ``transformer`` folder."""
    norm = data.get("qk_norm")
    if norm not in (None, "rms_norm_across_heads"):
        raise ConfigError(f"config.json: qk_norm={norm!r} is not supported", fix="null or 'rms_norm_across_heads'")
    return TransformerConfig(
        in_channels=data.get("in_channels", 32),
        out_channels=data.get("out_channels") or data.get("in_channels", 32),
        heads=data.get("num_attention_heads", 70),
        head_dim=data.get("attention_head_dim", 32),
        cross_heads=data.get("num_cross_attention_heads", 20),
        layers=data.get("num_layers", 20),
        caption_channels=data.get("caption_channels", 2304),
        mlp_ratio=data.get("mlp_ratio", 2.5),
        patch_size=data.get("patch_size", 1),
        sample_size=data.get("sample_size", 32),
        position_scale=data.get("interpolation_scale"),
        qk_norm=norm is not None,
        guidance_embed=bool(data.get("guidance_embeds", False)),
        guidance_scale=data.get("guidance_embeds_scale", 0.1),
        timestep_scale=data.get("timestep_scale", 1.0),
        norm_eps=data.get("norm_eps", 1e-6),
        attention_bias=bool(data.get("attention_bias", False)),
    ).check()


def to_diffusers(config: TransformerConfig) -> dict[str, Any]:
    """The published ``config.json``."""
    return {
        "_class_name": "SanaTransformer2DModel",
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "num_attention_heads": config.heads,
        "attention_head_dim": config.head_dim,
        "num_layers": config.layers,
        "num_cross_attention_heads": config.cross_heads,
        "cross_attention_head_dim": config.width // config.cross_heads,
        "cross_attention_dim": config.width,
        "caption_channels": config.caption_channels,
        "mlp_ratio": config.mlp_ratio,
        "dropout": 0.0,
        "attention_bias": config.attention_bias,
        "sample_size": config.sample_size,
        "patch_size": config.patch_size,
        "norm_elementwise_affine": False,
        "norm_eps": config.norm_eps,
        "interpolation_scale": config.position_scale,
        "guidance_embeds": config.guidance_embed,
        "guidance_embeds_scale": config.guidance_scale,
        "qk_norm": "rms_norm_across_heads" if config.qk_norm else None,
        "timestep_scale": config.timestep_scale,
    }


def from_original(data: Mapping[str, Any]) -> TransformerConfig:
    """From the constructor settings of the reference code (``num_heads`` are the cross heads there)."""
    width = data["hidden_size"]
    head = data.get("linear_head_dim", 32)
    return TransformerConfig(
        in_channels=data.get("in_channels", 32),
        out_channels=data.get("in_channels", 32),
        heads=width // head,
        head_dim=head,
        cross_heads=data["num_heads"],
        layers=data["depth"],
        caption_channels=data.get("caption_channels", 2304),
        mlp_ratio=data.get("mlp_ratio", 2.5),
        patch_size=data.get("patch_size", 1),
        sample_size=data.get("input_size", 32),
        position_scale=data.get("pe_interpolation", 1.0) if data.get("use_pe", False) else None,
        qk_norm=bool(data.get("qk_norm", False)),
        guidance_embed=bool(data.get("cfg_embed", False)),
        guidance_scale=data.get("cfg_embed_scale", 0.1),
        attention_eps=1e-8,
        cross_norm_eps=1e-6,
    ).check()


def to_original(config: TransformerConfig) -> dict[str, Any]:
    """The reference code's constructor settings."""
    return {
        "model": "SanaMSCM" if config.guidance_embed else "SanaMS",
        "hidden_size": config.width,
        "depth": config.layers,
        "num_heads": config.cross_heads,
        "linear_head_dim": config.head_dim,
        "patch_size": config.patch_size,
        "in_channels": config.in_channels,
        "mlp_ratio": config.mlp_ratio,
        "caption_channels": config.caption_channels,
        "input_size": config.sample_size,
        "use_pe": config.position_scale is not None,
        "pe_interpolation": config.position_scale or 1.0,
        "qk_norm": config.qk_norm,
        "cross_norm": config.qk_norm,
        "cfg_embed": config.guidance_embed,
        "cfg_embed_scale": config.guidance_scale,
        "pred_sigma": False,
        "learn_sigma": False,
    }


def from_published(data: Mapping[str, Any]) -> TransformerConfig:
    """Either published form."""
    if "hidden_size" in data:
        return from_original(data)
    if "num_attention_heads" in data:
        return from_diffusers(data)
    raise ConfigError(
        "config.json describes no Sana transformer", tried=[f"keys: {', '.join(list(data)[:8])}"], fix="use the config.json of the transformer folder"
    )
