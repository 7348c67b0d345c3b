"""Settings of the recipe ``sana/emoji``."""

from __future__ import annotations

from dataclasses import dataclass, field

from zoo_core.training.config import TrainConfig


@dataclass
class TextConfig:
    """The Gemma-2 text encoder that is trained along.

    Attributes:
        vocabulary: Size of the tokenizer's vocabulary.
        width, layers, heads: Of the encoder; ``width`` is also the transformer's ``caption_channels``.
        length: Longest caption in tokens.
    """

    vocabulary: int = 3072
    width: int = 192
    layers: int = 3
    heads: int = 4
    length: int = 16


@dataclass
class EmojiTrainConfig(TrainConfig):
    """``zoo train sana/emoji output=runs/sana-emoji``; the defaults are the first round of ``sana-emoji``, but for its first 480 steps (see TRAINING.md).

    Attributes:
        autoencoder: Name of the autoencoder in the registry, or a folder that its plugin loads.
        data_folder: Where the emoji set is kept (default: user cache).
        styles, style_weights: Drawing styles and how often each is drawn.
        default_style: The style that captions without style words mean.
        size: Side of the pictures in pixels.
        colour_copies: Recoloured copies per suitable picture.
        held_out: Share of (emoji, style) pairs and of (emoji, colour) pairs that are never trained on.
        captions: Captions prepared per picture.
        width, layers, heads, cross_heads: Of the linear DiT.
        text: The text side.
        shift: Timestep shift of the flow, in training and in the exported scheduler.
        draws: Noise draws per caption and step; the text encoder runs once for all of them.
        dropout: Share of captions replaced by the empty one.
        optimiser: ``muon`` or ``adamw`` or ``came``.
        decay: Share of the steps, at the end, in which the learning rate falls linearly.
        init: Run folder or checkpoint whose averaged weights are the start (a second round with other settings; the same ``seed`` keeps the same split).
        guidance, sample_steps: Of the sheets and measures made while training.
    """

    autoencoder: str = "dc-ae-emoji"
    data_folder: str = ""
    styles: list[str] = field(default_factory=lambda: ["twitter", "google", "flat"])
    style_weights: list[float] = field(default_factory=lambda: [3.0, 0.7, 0.7])
    default_style: str = "twitter"
    size: int = 128
    colour_copies: int = 2
    held_out: float = 0.05
    captions: int = 16
    width: int = 256
    layers: int = 8
    heads: int = 8
    cross_heads: int = 4
    text: TextConfig = field(default_factory=TextConfig)
    shift: float = 2.0
    draws: int = 2
    dropout: float = 0.1
    optimiser: str = "muon"
    decay: float = 0.4
    init: str = ""
    guidance: float = 3.0
    sample_steps: int = 16
    output: str = "runs/sana-emoji"
    steps: int = 1850
    precision: str = "bfloat16"
    batch_size: int = 96
    lr: float = 2.5e-3
    warmup: int = 100
    ema: float = 0.998
    clip_grad: float = 1.0
    parallel: str = "replicate"
    save_every: int = 250
    eval_every: int = 250

    def validate(self) -> None:
        """Also: styles, optimiser, widths."""
        TrainConfig.validate(self)
        self.require(self.optimiser in ("muon", "adamw", "came"), "optimiser", "muon, adamw or came")
        self.require(self.default_style in self.styles, "default_style", "one of styles")
        self.require(len(self.styles) == len(self.style_weights), "style_weights", "one number per style")
        self.require(self.width % self.heads == 0 and self.width % self.cross_heads == 0, "width", "a multiple of heads and cross_heads")
        self.require(self.text.width % self.text.heads == 0, "text", "width that is a multiple of heads")
        self.require(self.draws >= 1, "draws", "a whole number >= 1")
