"""Configuration of the class-conditional diffusion models, and the published form of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo_core.errors import ConfigError
from zoo_dc_ae.config import AutoencoderConfig

NETWORKS = ("uvit", "dit")
OBJECTIVES = ("epsilon", "flow")


@dataclass
class DiffusionConfig:
    """A network on latents of one autoencoder; the defaults are U-ViT-S on f32c32 latents of 512-pixel pictures.

    Attributes:
        network: ``"uvit"`` or ``"dit"``.
        objective: ``"epsilon"`` (noise prediction on a discrete schedule) or ``"flow"`` (velocity on the linear path: USiT).
        input_size: Side of the square latent.
        patch_size: Latent pixels per token side (1 on DC-AE latents).
        in_channels: Latent channels.
        hidden_size, depth, num_heads, mlp_ratio: Transformer.
        num_classes: Classes; one more embedding row stands for "no class" when ``class_dropout_prob`` > 0.
        class_dropout_prob: Share of training pictures whose class is dropped.
        qkv_bias, mlp_time_embed, activation: U-ViT only.
        learn_sigma, post_norm, unconditional: DiT only.
        gradient_checkpointing: Recompute each block in the backward pass while training.
        autoencoder: The autoencoder whose latents it models.
    """

    network: str = "uvit"
    objective: str = "epsilon"
    input_size: int = 16
    patch_size: int = 1
    in_channels: int = 32
    hidden_size: int = 512
    depth: int = 12
    num_heads: int = 8
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    class_dropout_prob: float = 0.1
    qkv_bias: bool = False
    mlp_time_embed: bool = False
    activation: str = "gelu"
    learn_sigma: bool = True
    post_norm: bool = False
    unconditional: bool = False
    gradient_checkpointing: bool = False
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)

    @property
    def tokens(self) -> int:
        """Tokens of one latent."""
        return (self.input_size // self.patch_size) ** 2

    @property
    def null_class(self) -> int:
        """Label that means "no class"."""
        return self.num_classes

    def check(self) -> DiffusionConfig:
        """Raise :class:`~zoo_core.errors.ConfigError` when the parts do not fit together; returns self."""
        if self.network not in NETWORKS:
            raise ConfigError(f"network is {self.network!r}", fix=f"choose from {', '.join(NETWORKS)}")
        if self.objective not in OBJECTIVES or (self.network == "dit" and self.objective == "flow"):
            raise ConfigError(f"objective is {self.objective!r} for network {self.network!r}", fix="choose epsilon, or flow with uvit")
        if self.input_size % self.patch_size:
            raise ConfigError(f"input_size={self.input_size} is not a multiple of patch_size={self.patch_size}", fix="choose fitting sizes")
        if self.hidden_size % self.num_heads:
            raise ConfigError(f"hidden_size={self.hidden_size} is not a multiple of num_heads={self.num_heads}", fix="choose fitting sizes")
        if self.network == "uvit" and self.depth % 2:
            raise ConfigError(f"depth={self.depth} of U-ViT", fix="choose an even number (in-blocks and out-blocks; the middle block is one more)")
        if self.network == "dit" and self.hidden_size % 4:
            raise ConfigError(f"hidden_size={self.hidden_size} of DiT", fix="choose a multiple of 4 (sine and cosine of two coordinates)")
        if self.activation not in ("gelu", "silu"):
            raise ConfigError(f"activation is {self.activation!r}", fix="choose gelu or silu")
        return self


_SAME = ("input_size", "patch_size", "in_channels", "hidden_size", "depth", "num_heads", "mlp_ratio", "num_classes", "class_dropout_prob")
_UVIT = ("qkv_bias", "mlp_time_embed")
_DIT = ("learn_sigma", "post_norm", "unconditional")


def from_original(data: Mapping[str, Any], *, base: DiffusionConfig | None = None) -> DiffusionConfig:
    """Configuration from the reference's ``UViTConfig``/``DiTConfig`` fields; what they do not say is taken from ``base``."""
    from dataclasses import replace

    name = data.get("model", data.get("name"))
    if name not in ("UViT", "USiT", "DiT"):
        raise ConfigError(f"diffusion configuration names the network {name!r}", fix="known: UViT, USiT, DiT")
    values: dict[str, Any] = {key: data[key] for key in (*_SAME, *(_DIT if name == "DiT" else _UVIT)) if key in data}
    if "act_layer" in data:
        values["activation"] = data["act_layer"]
    values["network"] = "dit" if name == "DiT" else "uvit"
    flow = name == "USiT" or "SiT" in str(data.get("eval_scheduler", ""))
    values["objective"] = "flow" if flow else (base.objective if base and values["network"] == base.network else "epsilon")
    return replace(base or DiffusionConfig(), **values).check()
