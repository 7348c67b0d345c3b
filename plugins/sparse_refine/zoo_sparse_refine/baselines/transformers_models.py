"""Semantic-segmentation models of transformers as baselines (the small SegFormer of ``sparse-refine-streets`` among them)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from zoo_core.errors import ConfigError, MissingDependencyError
from zoo_sparse_refine.baselines import Baseline
from zoo_sparse_refine.config import BaselineConfig


class TransformersBaseline(Baseline):
    """``AutoModelForSemanticSegmentation`` of a configuration given as data (``model_type`` and its fields)."""

    def __init__(self, config: BaselineConfig, num_classes: int) -> None:
        super().__init__(config)
        try:
            from transformers import AutoConfig, AutoModelForSemanticSegmentation
        except ImportError as error:
            raise MissingDependencyError("this baseline needs transformers", tried=[str(error)], fix="pip install transformers") from error
        data: dict[str, Any] = dict(config.model)
        kind = data.pop("model_type", None)
        if not kind:
            raise ConfigError("baseline.model has no model_type", fix="baseline.model.model_type=segformer")
        try:
            settings = AutoConfig.for_model(kind, num_labels=num_classes, **data)
            self.network = AutoModelForSemanticSegmentation.from_config(settings)
        except ValueError as error:
            raise ConfigError(f"transformers has no segmentation model of type {kind!r}", tried=[str(error)[:200]], fix="use segformer, upernet...") from error

    def raw(self, image: Tensor) -> Tensor:
        """Logits at the model's own stride."""
        return self.network(pixel_values=image).logits
