"""Configurations: the refiner, the dense baseline below it, and both together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from zoo_core.errors import ConfigError

SELECTORS = ("threshold", "top-k", "budget")
ENSEMBLERS = ("gated", "entropy")
BOUNDS = ("batch", "image", "size")
CHANNEL_ORDERS = ("bgr", "rgb")
MEAN = (123.675, 116.28, 103.53)
"""Means and deviations of the R, G and B channels, for values 0..255."""
STD = (58.395, 57.12, 57.375)


@dataclass
class RefinerConfig:
    """The sparse refiner; the defaults are the reference configuration (79.34 M parameters for 19 classes).

    Attributes:
        num_classes: C.
        features: What every selected pixel carries, in this order: ``rgb`` (3), ``xy`` (row/H, column/W), ``p`` (C probabilities), ``p>t`` (C flags).
        reps: Blocks per level of the U-Net.
        planes: Channels per level.
        hidden: Width of the ensembler's two small networks.
        ensembler: ``"gated"`` or ``"entropy"`` (no parameters).
        threshold: Entropy in nats above which a pixel is refined.
        top_k: Instead of the threshold, the share of the pixels of every picture that is refined, the most uncertain ones; 0: the threshold decides.
        bounds: Which cells a strided convolution has: ``"batch"`` (up to the largest active coordinate of the batch: the reference's rule),
        ``"image"`` (of each
            image) or ``"size"`` (of the picture; independent of what is selected).
        channel_order: ``"bgr"``: the network sees blue, green, red normalised with the means of red, green, blue, as the reference's data set gives it.
    """

    num_classes: int = 19
    features: list[str] = field(default_factory=lambda: ["rgb"])
    reps: list[int] = field(default_factory=lambda: [2, 2, 2, 2, 2, 2])
    planes: list[int] = field(default_factory=lambda: [32, 64, 128, 256, 512, 1024])
    hidden: int = 64
    ensembler: str = "gated"
    threshold: float = 0.3
    top_k: float = 0.0
    bounds: str = "batch"
    channel_order: str = "bgr"

    @property
    def in_channels(self) -> int:
        """Width of the features of a point."""
        widths = {"rgb": 3, "xy": 2, "p": self.num_classes}
        return sum(widths.get(name, self.num_classes) for name in self.features)

    def check(self) -> RefinerConfig:
        """This configuration, when it can be built.

        Raises:
            ConfigError: A list is empty or of another length, or a name is unknown.
        """
        if not self.planes or len(self.planes) != len(self.reps):
            raise ConfigError(f"refiner.planes has {len(self.planes)} levels and refiner.reps {len(self.reps)}", fix="give both the same length, at least 1")
        if min(*self.planes, *self.reps, self.num_classes, self.hidden) < 1:
            raise ConfigError("refiner.planes, reps, num_classes and hidden must be positive", fix="leave them at their defaults")
        if not 0 <= self.top_k <= 1:
            raise ConfigError(f"refiner.top_k = {self.top_k} is not a share", fix="give a number from 0 to 1")
        for name in self.features:
            if name not in ("rgb", "xy", "p") and _flag(name) is None:
                raise ConfigError(f"refiner.features has the unknown entry {name!r}", fix="use rgb, xy, p or p>0.3")
        for key, value, known in (
            ("ensembler", self.ensembler, ENSEMBLERS),
            ("bounds", self.bounds, BOUNDS),
            ("channel_order", self.channel_order, CHANNEL_ORDERS),
        ):
            if value not in known:
                raise ConfigError(f"refiner.{key} = {value!r} is unknown", fix=f"one of {', '.join(known)}")
        return self


def _flag(name: str) -> float | None:
    """The threshold of a feature ``p>t``."""
    head, mark, tail = name.partition(">")
    try:
        return float(tail) if head == "p" and mark else None
    except ValueError:
        return None


@dataclass
class BaselineConfig:
    """The dense model that looks at the small picture.

    Attributes:
        kind: ``"mmseg"`` (any model dictionary of mmsegmentation) or ``"transformers"`` (a semantic-segmentation model of transformers).
        model: The model dictionary (mmseg) or the configuration with ``model_type`` (transformers).
        height, width: Size of the picture it gets; 0: the full size.
        antialias: Whether the picture is averaged when it is made smaller (False: plain bilinear, as OpenCV does it).
        scores: ``"logits"`` or ``"probabilities"`` (not normalised over classes; Mask2Former): the refiner then takes ln(max(score, 1e-10)).
    """

    kind: str = "mmseg"
    model: dict[str, Any] = field(default_factory=dict)
    height: int = 512
    width: int = 1024
    antialias: bool = False
    scores: str = "logits"

    def check(self) -> BaselineConfig:
        """This configuration, when it can be built.

        Raises:
            ConfigError: A name is unknown.
        """
        if self.kind not in ("mmseg", "transformers"):
            raise ConfigError(f"baseline.kind = {self.kind!r} is unknown", fix="mmseg or transformers")
        if self.scores not in ("logits", "probabilities"):
            raise ConfigError(f"baseline.scores = {self.scores!r} is unknown", fix="logits or probabilities")
        return self


@dataclass
class SparseRefineConfig:
    """Dense baseline and sparse refiner.

    Attributes:
        classes: Names, in order of the label numbers.
        palette: A colour for each class, R G B in 0..255.
        ignore_index: Label of pixels that do not count.
        height, width: The full size that ``baseline.height`` and ``width`` belong to; pictures of another size are scaled for the baseline in the same ratio.
    """

    baseline: BaselineConfig = field(default_factory=BaselineConfig)
    refiner: RefinerConfig = field(default_factory=RefinerConfig)
    classes: list[str] = field(default_factory=list)
    palette: list[list[int]] = field(default_factory=list)
    ignore_index: int = 255
    height: int = 1024
    width: int = 2048

    def check(self) -> SparseRefineConfig:
        """This configuration, when it can be built.

        Raises:
            ConfigError: See the parts.
        """
        self.baseline.check()
        self.refiner.check()
        if self.classes and len(self.classes) != self.refiner.num_classes:
            raise ConfigError(f"{len(self.classes)} classes are named and refiner.num_classes is {self.refiner.num_classes}", fix="name each class once")
        return self
