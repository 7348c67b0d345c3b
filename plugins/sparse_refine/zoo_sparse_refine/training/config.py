"""Settings of the recipes ``sparse-refine/dense`` and ``sparse-refine/refiner``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from zoo_core.training.config import TrainConfig


@dataclass(kw_only=True)
class DataConfig(TrainConfig):
    """Where the pictures come from; shared by both recipes.

    Attributes:
        data: ``streets`` (generated) or ``cityscapes``, ``bdd100k``, ``deepglobe``, ``isic``.
        folder: The data set's folder; for ``streets`` a cache of scenes (8 MB each; "" draws every scene anew, about 0.4 s).
        scenes, held_out: For ``streets``: scenes to train on (seed ``seed``) and to evaluate on (seed ``seed + 1``).
        height, width: For ``streets``: pixels of a scene.
        crop_height, crop_width: Of a training sample.
        scale_low, scale_high: Random scale of the pictures.
    """

    data: str = "streets"
    folder: str = ""
    scenes: int = 900
    held_out: int = 12
    height: int = 1024
    width: int = 2048
    crop_height: int = 512
    crop_width: int = 1024
    scale_low: float = 0.5
    scale_high: float = 2.0

    def validate(self) -> None:
        """Raise :class:`~zoo_core.errors.ConfigError` for a value out of range."""
        super().validate()
        self.require(0 < self.scale_low <= self.scale_high, "scale_low", "positive and at most scale_high")
        self.require(min(self.crop_height, self.crop_width, self.scenes, self.held_out) >= 1, "crop_height", "at least 1, like crop_width, scenes and held_out")


def _upernet() -> dict[str, Any]:
    return {
        "model_type": "upernet",
        "backbone_config": {
            "model_type": "resnet",
            "embedding_size": 32,
            "hidden_sizes": [32, 64, 128, 192],
            "depths": [2, 2, 2, 2],
            "layer_type": "basic",
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
        },
        "hidden_size": 64,
        "use_auxiliary_head": False,
    }


@dataclass(kw_only=True)
class DenseTrainConfig(DataConfig):
    """``zoo train sparse-refine/dense output=runs/dense shrink=2``: the dense model, for pictures made smaller by ``shrink`` (1: full resolution).

    Attributes:
        model: Configuration for transformers (``model_type`` and its fields).
        shrink: Factor between a picture and what the model sees.
        init: Folder of an earlier run's export whose weights are the start (a low-resolution model for a full-resolution one).
        class_power: Classes are weighted by frequency ** -class_power (0: all alike).
    """

    model: dict[str, Any] = field(default_factory=_upernet)
    shrink: int = 2
    init: str = ""
    class_power: float = 0.25


@dataclass(kw_only=True)
class RefinerTrainConfig(DataConfig):
    """``zoo train sparse-refine/refiner baseline=runs/dense/export output=runs/refiner``.

    The paper's method: the dense model is frozen, refiner and ensembler learn from cross entropy of the refined and of the ensembled logits, AdamW, cosine.
    Different from the reference: coarse scores are computed on the fly instead of read from disk (a Cityscapes set of them is about 20 GB).

    Attributes:
        baseline: Name of a catalogue model, or a folder or file that ``zoo.load`` reads, whose dense part is used.
        model: The catalogue model that says how a ``baseline`` file is built.
        planes, reps, features, hidden, threshold, top_k, bounds, channel_order: Of the refiner; see :class:`~zoo_sparse_refine.config.RefinerConfig`.
        weight_decay: Of AdamW.
        identity_start: Begin with an ensembler that passes on what its gate mixed (False: the reference's start, random).
        class_power: Classes are weighted by frequency ** -class_power in both losses, as in ``sparse-refine/dense`` (0: all alike, the reference's loss).
    """

    baseline: str = ""
    model: str = "sparse-refine-streets"
    planes: list[int] = field(default_factory=lambda: [16, 32, 64, 96])
    reps: list[int] = field(default_factory=lambda: [1, 1, 1, 1])
    features: list[str] = field(default_factory=lambda: ["rgb", "p"])
    hidden: int = 64
    threshold: float = 0.3
    top_k: float = 0.0
    bounds: str = "size"
    channel_order: str = "rgb"
    weight_decay: float = 0.05
    identity_start: bool = True
    class_power: float = 0.0
