"""``zoo train sparse-refine/refiner``: the paper's training (fact sheet section 3) with coarse scores computed on the fly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo_core.errors import TrainingError
from zoo_core.training import Trainer, load_weights
from zoo_core.training.state import TrainState
from zoo_sparse_refine import layouts
from zoo_sparse_refine.config import RefinerConfig
from zoo_sparse_refine.model import SparseRefine
from zoo_sparse_refine.pipeline import SparseRefineNetwork, normalise
from zoo_sparse_refine.refiner import Refiner
from zoo_sparse_refine.training import common
from zoo_sparse_refine.training.config import RefinerTrainConfig


def run(config: RefinerTrainConfig) -> dict[str, Any]:
    """Train; returns the trainer's summary with ``export``, a folder that ``zoo.load`` reads (dense part and refiner)."""
    config.validate()
    data, held_out = common.scenes(config), common.scenes(config, held_out=True)
    dense = load_dense(config)
    network = assemble(config, dense, len(data.classes))
    trainer = Trainer(
        config,
        {"refiner": network.refiner},
        {"refiner": lambda parameters: torch.optim.AdamW(parameters, config.lr, weight_decay=config.weight_decay)},
        Step(network, data.ignore_index, common.class_weights(data, len(data.classes), config.class_power)),
        common.batches(config, data),
        lambda state: {} if state.rank else evaluate(config, network, held_out, state),
        title="refiner",
    )
    network.baseline.to(trainer.world.device).eval()
    result = trainer.run()
    if trainer.world.main:
        network.refiner.load_state_dict(load_weights(result["checkpoint"], "refiner"))
        model = SparseRefine(dense.spec, network.config, network.eval())
        result["export"] = str(layouts.save(model, Path(config.output) / "export")[-1].parent)
    return result


def load_dense(config: RefinerTrainConfig) -> Any:
    """The model whose dense part is refined."""
    from zoo_core.loading import load

    if not config.baseline:
        raise TrainingError("no dense baseline was named", fix="baseline=runs/dense/export (zoo train sparse-refine/dense makes one) or a model's name")
    if Path(config.baseline).expanduser().exists():
        return load(config.model, weights=config.baseline, device="cpu")
    return load(config.baseline, device="cpu")


def assemble(config: RefinerTrainConfig, dense: Any, classes: int) -> SparseRefineNetwork:
    """The frozen dense part with a new refiner, seeded."""
    settings = RefinerConfig(
        num_classes=classes,
        features=list(config.features),
        reps=list(config.reps),
        planes=list(config.planes),
        hidden=config.hidden,
        threshold=config.threshold,
        top_k=config.top_k,
        bounds=config.bounds,
        channel_order=config.channel_order,
    ).check()
    if dense.config.refiner.num_classes != classes:
        raise TrainingError(f"the baseline has {dense.config.refiner.num_classes} classes, the data {classes}", fix="train a baseline on the same data")
    torch.manual_seed(config.seed)
    network = SparseRefineNetwork(replace(dense.config, refiner=settings), dense.network.baseline, Refiner(settings))
    network.baseline.requires_grad_(False)
    if config.identity_start:
        begin_as_identity(network.refiner)
    return network


@torch.no_grad()
def begin_as_identity(refiner: Refiner) -> None:
    """Let the ensembler's last network pass on what the gate mixed: relu(x) - relu(-x) = x.

    With small refined logits the first answer then is the coarse one, and training improves on it instead of learning it again.  Needs two hidden units per
    class; with fewer nothing is changed.
    """
    fuser = getattr(refiner.ensembler, "fuser", None)
    count = refiner.config.num_classes
    if fuser is None or refiner.config.hidden < 2 * count:
        return
    first, last = fuser[0], fuser[2]
    one = torch.eye(count, device=first.weight.device)
    first.weight[: 2 * count] = torch.cat((one, -one))
    first.bias[: 2 * count] = 0
    last.weight.zero_()
    last.weight[:, : 2 * count] = torch.cat((one, -one), 1)
    last.bias.zero_()


class Step:
    """CE(refined) + CE(ensembled) over the selected pixels, weight 1 each; the dense part only predicts."""

    def __init__(self, network: SparseRefineNetwork, ignore: int, weights: Tensor | None = None) -> None:
        self.network, self.ignore, self.weights = network, ignore, weights

    def __call__(self, batch: dict[str, Tensor], state: TrainState) -> dict[str, Tensor]:
        pixels, labels = batch["pixels"].to(state.device), batch["labels"].to(state.device)
        network, refiner = self.network, self.network.refiner
        with torch.no_grad():
            scores = network.coarse(normalise(pixels))
            selection = refiner.select(scores, (pixels.shape[2], pixels.shape[3]))
        found = refiner.refine(network.detail(pixels), scores, selection)
        truth = labels[selection.coordinates.long().unbind(1)]
        if not bool((truth != self.ignore).any()):  # nothing uncertain in the batch: a zero that keeps every parameter in the graph
            zero = sum(parameter.sum() * 0.0 for parameter in refiner.parameters())
            return {"loss": zero} if isinstance(zero, Tensor) else {}
        weights = None if self.weights is None else self.weights.to(truth.device)
        losses = [F.cross_entropy(logits.float(), truth, weights, ignore_index=self.ignore) for logits in (found.refined, found.ensembled)]
        coarse = F.cross_entropy(found.coarse, truth, weights, ignore_index=self.ignore)
        share = torch.tensor(selection.share)
        return {"loss": losses[0] + losses[1], "loss_refined": losses[0].detach(), "loss_ensembled": losses[1].detach(), "loss_coarse": coarse, "share": share}


def evaluate(config: RefinerTrainConfig, network: SparseRefineNetwork, data: Any, state: TrainState) -> dict[str, float]:
    """mIoU at full resolution on held-out pictures: the dense part alone and refined, with the share of refined pixels."""
    shares: list[float] = []

    def refined(pixels: Tensor) -> Tensor:
        out = network(pixels)
        shares.append(out.refined.selection.share if out.refined else 0.0)
        return out.labels

    count = min(config.held_out, 4)
    with_refiner = common.measure(refined, data, count, state.device)
    alone = common.measure(lambda pixels: network(pixels, refine=False).labels, data, count, state.device)
    return {"miou": with_refiner["miou"], "miou_dense": alone["miou"], "refined_share": sum(shares) / max(1, len(shares))}
