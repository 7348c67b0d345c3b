"""``zoo train sparse-refine/dense``: a small dense model from scratch, for a low or the full resolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from zoo_core.checkpoint import save_checkpoint
from zoo_core.training import Trainer, load_weights
from zoo_core.training.state import TrainState
from zoo_sparse_refine.baselines import build_baseline
from zoo_sparse_refine.config import BaselineConfig, RefinerConfig, SparseRefineConfig
from zoo_sparse_refine.layouts import BASELINE_FILE, write_config
from zoo_sparse_refine.pipeline import normalise
from zoo_sparse_refine.training import common
from zoo_sparse_refine.training.config import DenseTrainConfig


def run(config: DenseTrainConfig) -> dict[str, Any]:
    """Train; returns the trainer's summary with ``export``, a folder that ``zoo train sparse-refine/refiner baseline=...`` takes."""
    config.validate()
    data, held_out = common.scenes(config), common.scenes(config, held_out=True)
    torch.manual_seed(config.seed)
    whole = configuration(config, data)
    baseline = build_baseline(whole.baseline, whole.refiner.num_classes)
    if config.init:
        baseline.network.load_state_dict(load_file(Path(config.init).expanduser() / BASELINE_FILE))
    baseline.network.to(memory_format=torch.channels_last)
    weights = common.class_weights(data, whole.refiner.num_classes, config.class_power)
    trainer = Trainer(
        config,
        {"network": baseline.network},
        {"network": lambda parameters: torch.optim.AdamW(parameters, config.lr, weight_decay=0.01)},
        Step(baseline, weights, data.ignore_index),
        common.batches(config, data, shrink=config.shrink),
        lambda state: {} if state.rank else evaluate(config, baseline, held_out, state),
        title="dense",
    )
    result = trainer.run()
    if trainer.world.main:
        baseline.network.load_state_dict(load_weights(result["checkpoint"], "network"))
        folder = Path(config.output) / "export"
        folder.mkdir(parents=True, exist_ok=True)
        state = {key: value.detach().cpu().contiguous() for key, value in baseline.network.state_dict().items()}
        save_checkpoint(state, folder / BASELINE_FILE)
        write_config(whole, folder)
        result["export"] = str(folder)
    return result


def configuration(config: DenseTrainConfig, data: Any) -> SparseRefineConfig:
    """What the run makes, as the catalogue's configuration."""
    shrink = config.shrink
    height, width = (config.height // shrink, config.width // shrink) if shrink > 1 else (0, 0)
    baseline = BaselineConfig(kind="transformers", model=dict(config.model), height=height, width=width, antialias=True)
    refiner = RefinerConfig(num_classes=len(data.classes), bounds="size", channel_order="rgb")
    palette = [list(colour) for colour in data.palette]
    return SparseRefineConfig(baseline, refiner, list(data.classes), palette, data.ignore_index, config.height, config.width)


class Step:
    """Weighted cross entropy at the resolution of the labels."""

    def __init__(self, baseline: nn.Module, weights: Tensor, ignore: int) -> None:
        self.baseline, self.weights, self.ignore = baseline, weights, ignore

    def __call__(self, batch: dict[str, Tensor], state: TrainState) -> dict[str, Tensor]:
        pixels = normalise(batch["pixels"].to(state.device)).contiguous(memory_format=torch.channels_last)
        logits = self.baseline(pixels)
        return {"loss": F.cross_entropy(logits.float(), batch["labels"].to(state.device), self.weights.to(state.device), ignore_index=self.ignore)}


def evaluate(config: DenseTrainConfig, baseline: nn.Module, data: Any, state: TrainState) -> dict[str, float]:
    """mIoU at full resolution on held-out pictures, classes enlarged to it."""
    shrink = config.shrink

    def predict(pixels: Tensor) -> Tensor:
        size = (pixels.shape[2], pixels.shape[3])
        image = normalise(pixels)
        if shrink > 1:
            small = (size[0] // shrink, size[1] // shrink)
            image = F.interpolate(image, size=small, mode="bilinear", align_corners=False, antialias=True)
        return common.nearest_labels(baseline(image), size)

    return common.measure(predict, data, min(config.held_out, 4), state.device)
