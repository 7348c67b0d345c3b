"""Handlers of the recorded cases: any configuration, size and seed, through the code that users call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F

from zoo_core.checkpoint import load_into, open_checkpoint
from zoo_core.errors import ParityError
from zoo_core.parity import Check, ParityCase, Tolerance
from zoo_sparse_refine.config import BaselineConfig, RefinerConfig, SparseRefineConfig
from zoo_sparse_refine.ensembler import EntropyEnsembler, GatedEnsembler
from zoo_sparse_refine.loading import load_baseline, load_refiner, mmseg_config, reference_config
from zoo_sparse_refine.refiner import point_features
from zoo_sparse_refine.selection import LearnableSelector, entropy, log_scores, select_pixels
from zoo_sparse_refine.sparse.engines import make_engine
from zoo_sparse_refine.unet import SparseUNet

CLOSE, POINTS, NETWORK, STEP = Tolerance(abs=1e-6), Tolerance(abs=1e-5), Tolerance(abs=2e-5), Tolerance(abs=5e-5)
GRADIENT = Tolerance(rel=1e-3, abs=1e-7)
SAME = Tolerance(exact=True)
DENSE, SCORES = Tolerance(abs=1e-4), Tolerance(abs=2e-4)


def _selected(scores: torch.Tensor, threshold: float, expected: torch.Tensor, uncertainty: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask of the pixels that :func:`select_pixels` takes; where the entropy is within 1e-6 of the threshold the recorded decision stands."""
    coordinates = select_pixels(scores, (scores.shape[2], scores.shape[3]), threshold=threshold).coordinates.long()
    mask = torch.zeros(expected.shape, dtype=torch.bool)
    mask[coordinates.unbind(1)] = True
    return torch.where((uncertainty - threshold).abs() < 1e-6, expected.bool(), mask), coordinates


def entropy_selector(case: ParityCase) -> Iterator[Check]:
    """Entropy, masks at every threshold by both routes, indices, features of the points, and the learnable selector."""
    settings, io = case.json("config.json"), case.tensors("io.safetensors")
    logits = io["logits"]
    scores = logits.permute(0, 3, 1, 2)
    uncertainty = entropy(logits.softmax(-1))
    yield Check("entropy", uncertainty, io["entropy"], CLOSE)
    yield Check("entropy (op)", select_pixels(scores, tuple(logits.shape[1:3]), threshold=0.0).entropy, io["entropy"], CLOSE)  # type: ignore[arg-type]
    if "log_probs" in io:
        yield Check("log_probs", log_scores(io["probs"]), io["log_probs"], CLOSE)
    for key in io:
        name, _, threshold = key.partition("@")
        if name in ("mask", "mask_from_log_probs"):
            source = logits if name == "mask" else log_scores(io["probs"])
            own = entropy(source.softmax(-1))
            mask, _ = _selected(source.permute(0, 3, 1, 2), float(threshold), io[key], own)
            yield Check(key, mask, io[key].bool(), SAME, any_dtype=True)
            if name == "mask" and f"indices@{threshold}" in io:
                yield Check(f"indices@{threshold}", mask.nonzero().int(), io[f"indices@{threshold}"].int(), SAME)
    limit = float(settings.get("featurizer_threshold", 0.3))
    selection = select_pixels(scores, tuple(logits.shape[1:3]), threshold=limit)  # type: ignore[arg-type]
    if "featurizer.coords" in io:
        yield Check("featurizer.coords", F.pad(selection.coordinates, (0, 1)), io["featurizer.coords"], SAME)
    coarse = logits[selection.coordinates.long().unbind(1)]
    for key in io:
        if key.startswith("featurizer.") and key != "featurizer.coords":
            names = key.removeprefix("featurizer.").split("+")
            yield Check(key, point_features(names, io["image"].permute(0, 3, 1, 2), coarse, selection), io[key], CLOSE)
    if "learnable_prob" in io:
        state = case.tensors("checkpoint.safetensors")
        width, hidden = state["conv.0.weight"].shape[0], state["mlp.0.weight"].shape[0]
        selector = LearnableSelector(logits.shape[-1], width, hidden)
        selector.load_state_dict(state)
        with torch.no_grad():
            probability = selector(io["image"], logits)
        yield Check("learnable_prob", probability, io["learnable_prob"], CLOSE)
        limit = float(settings.get("learnable_threshold", 0.5))
        mask = torch.where((probability - limit).abs() < 1e-6, io["learnable_mask"].bool(), probability > limit)
        yield Check("learnable_mask", mask, io["learnable_mask"].bool(), SAME)


def sparse_conv_layout(case: ParityCase) -> Iterator[Check]:
    """Submanifold, strided and transposed convolution in the reference's weight layout, the converted weights, and spconv where it is installed."""
    settings, io = case.json("config.json"), case.tensors("io.safetensors")
    coordinates, x = io["coords"][:, :3].contiguous(), io["feats"]
    size, images = (int(settings["height"]), int(settings["width"])), int(settings["batch"])
    names = ["kernels", *(["spconv"] if _has_spconv() else [])]
    for name in names:
        engine = make_engine(name, coordinates, 2, size=size, images=images, bounds="batch")
        with torch.no_grad():
            yield Check(f"{name}: subm.out", engine.submanifold(x, io["subm.kernel"], 0), io["subm.out"], POINTS)
            down = engine.down(x, io["down.kernel"], 0)
            order = slice(None) if name == "kernels" else _row_major(engine.tensors[1].indices)  # type: ignore[attr-defined]
            yield Check(f"{name}: down.out", down[order], io["down.out"], POINTS)
            yield Check(f"{name}: up.out", engine.up(down if name != "kernels" else io["down.out"], io["up.kernel"], 0), io["up.out"], POINTS)
        if name == "kernels":
            yield Check("down.coords", F.pad(engine.levels[1].coordinates, (0, 1)), io["down.coords"], SAME)
    yield Check("pointwise.out", x @ io["pointwise.kernel"], io["pointwise.out"], POINTS)
    inputs, outputs = io["subm.kernel"].shape[1:]
    square = io["subm.kernel"].reshape(3, 3, inputs, outputs)
    yield Check("subm.dense_weight_oihw", square.permute(3, 2, 1, 0), io["subm.dense_weight_oihw"], SAME)
    yield Check("subm.spconv_weight", square.permute(3, 1, 0, 2), io["subm.spconv_weight"], SAME)
    back = io["up.kernel"].reshape(3, 3, outputs, inputs)
    yield Check("up.dense_transpose_weight_iohw", back.permute(2, 3, 1, 0), io["up.dense_transpose_weight_iohw"], SAME)
    yield Check("up.spconv_weight", back.permute(3, 1, 0, 2), io["up.spconv_weight"], SAME)


def _row_major(indices: torch.Tensor) -> torch.Tensor:
    place = indices.long()
    return ((place[:, 0] << 40) + (place[:, 1] << 20) + place[:, 2]).argsort()


def _has_spconv() -> bool:
    from importlib.util import find_spec

    return find_spec("spconv") is not None


def sparse_unet(case: ParityCase) -> Iterator[Check]:
    """Output, every convolution's output and the coordinates of every level; the output again with spconv where it is installed."""
    settings, io = case.json("config.json"), case.tensors("io.safetensors")
    with torch.device("meta"):
        network = SparseUNet(int(settings["in_channels"]), list(settings["reps"]), list(settings["nPlanes"]))
    load_into(network, open_checkpoint(case.file("checkpoint.safetensors")), dtype=torch.float32)
    network.eval()
    coordinates = io["coords"][:, :3].contiguous()
    place = {"size": (int(settings["height"]), int(settings["width"])), "images": int(settings["batch"]), "bounds": "batch"}
    engine = make_engine("kernels", coordinates, network.depth, **place)  # type: ignore[arg-type]
    taps: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        yield Check("out", network(io["feats"], engine, taps), io["out"], NETWORK)
    level = 1
    for key in sorted((key for key in io if key.startswith("tapcoords.")), key=len):
        yield Check(key, F.pad(engine.levels[level].coordinates, (0, 1)), io[key], SAME)
        level += 1
    for key in io:
        if key.startswith("tap."):
            name = key.removeprefix("tap.")
            if name not in taps:
                raise ParityError(f"case {case.path}: the network has no convolution {name!r}", fix="record the case again")
            yield Check(key, taps[name], io[key], NETWORK)
    if _has_spconv():
        with torch.no_grad():
            other = network(io["feats"], make_engine("spconv", coordinates, network.depth, **place))  # type: ignore[arg-type]
        yield Check("out (spconv)", other, io["out"], NETWORK)


def gated_ensembler(case: ParityCase) -> Iterator[Check]:
    """Gate, mixture, output, entropies, and the parameter-free alternative."""
    io, state = case.tensors("io.safetensors"), case.tensors("checkpoint.safetensors")
    ensembler = GatedEnsembler(state["fuser.0.weight"].shape[1], state["attn.0.weight"].shape[0])
    ensembler.load_state_dict(state)
    first, second = io["l1"], io["l2"]
    with torch.no_grad():
        yield Check("entropy1", entropy(first.softmax(-1))[:, None], io["entropy1"], POINTS)
        yield Check("entropy2", entropy(second.softmax(-1))[:, None], io["entropy2"], POINTS)
        yield Check("weights", ensembler.gate(first, second), io["weights"], POINTS)
        yield Check("mixed", ensembler.mix(first, second), io["mixed"], POINTS)
        yield Check("out", ensembler(first, second), io["out"], POINTS)
        yield Check("entropy_ensembler_out", EntropyEnsembler()(first, second), io["entropy_ensembler_out"], POINTS)


def refine_step(case: ParityCase) -> Iterator[Check]:
    """Forward in evaluation, predictions, losses and metrics, then one training step with gradients and running statistics."""
    from zoo_sparse_refine.metrics import confusion, dice_loss, mean_iou, pixel_accuracy

    settings, io = case.json("config.json"), case.tensors("io.safetensors")
    config = SparseRefineConfig(refiner=reference_config(RefinerConfig(), settings))
    refiner = load_refiner(config, open_checkpoint(case.file("checkpoint.safetensors")))
    image, logits, ignore = io["image"], io["logits"], int(settings.get("ignore_index", 255))
    classes = config.refiner.num_classes
    if "logits_low" in io:
        low = io["logits_low"].permute(0, 3, 1, 2)
        large = F.interpolate(low, size=logits.shape[1:3], mode="nearest").permute(0, 2, 3, 1)
        yield Check("logits", large, logits, CLOSE)
        with torch.no_grad():  # the path of segment(): scores stay small, every point looks its own up
            size = (logits.shape[1], logits.shape[2])
            short = refiner.refine(image.permute(0, 3, 1, 2), low, refiner.select(low, size))
        yield Check("segment path: logits/e/mask", short.ensembled, io["out.logits/e/mask"], STEP)
    with torch.no_grad():
        out = refiner(image, logits)
    yield Check("mask", out["mask"], io["mask"].bool(), SAME, any_dtype=True)
    labels = io["label"].long()
    chosen = labels[out["mask"]]
    for key in io:
        name = key.removeprefix("out.")
        if key.startswith("out.") and name in out:
            yield Check(key, out[name], io[key], STEP)
        elif key == "out.label/mask":
            yield Check(key, chosen, io[key].long(), SAME, any_dtype=True)
    if "pred" in io:
        yield Check("pred", out["logits/e/full"].argmax(-1), io["pred"].long(), SAME, any_dtype=True)
    scalars = settings.get("scalars", {})
    for name, value in scalars.items():
        kind, _, which = name.partition("/")
        if not which:
            continue
        found = out[f"logits/{which}"].reshape(-1, classes)
        truth = chosen if which.endswith("mask") else labels.reshape(-1)
        if kind == "xent":
            actual = float(F.cross_entropy(found, truth, ignore_index=ignore))
        elif kind == "dice":
            actual = float(dice_loss(found, truth, ignore))
        else:
            table = confusion(found.argmax(-1), truth, classes, ignore)
            actual = pixel_accuracy(table) if kind == "macc" else mean_iou(table)
        yield Check(name, actual, float(value), STEP)
    refiner.train()
    out = refiner(image, logits)
    loss = sum(F.cross_entropy(out[f"logits/{key}/mask"], chosen, ignore_index=ignore) for key in "oe")
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    if "train_loss" in scalars:
        yield Check("train_loss", loss.item(), float(scalars["train_loss"]), STEP)
    yield from _training(refiner, out, io)


refine_step_features = refine_step


def _training(refiner: torch.nn.Module, out: dict[str, torch.Tensor], io: dict[str, torch.Tensor]) -> Iterator[Check]:
    parameters, buffers = dict(refiner.named_parameters()), dict(refiner.named_buffers())
    for key in io:
        kind, _, name = key.partition(".")
        if kind in ("grad_l2", "grad"):
            gradient = parameters[name].grad
            if gradient is None:
                raise ParityError(f"no gradient reaches {name}", fix="the training step is wrong")
            if kind == "grad":
                yield Check(key, gradient, io[key], Tolerance(std=1e-3))
            else:
                yield Check(key, gradient.norm().reshape(io[key].shape), io[key], GRADIENT)
        elif kind == "train":
            actual = out[name] if name in out else buffers[name]
            yield Check(key, actual.detach(), io[key], STEP)


def baseline(case: ParityCase) -> Iterator[Check]:
    """A dense baseline: stages, head, auxiliary head, scores at the input's size."""
    settings, io = case.json("config.json"), case.tensors("io.safetensors")
    start = mmseg_config(BaselineConfig(), settings)
    classes = int(settings["decode_head"]["num_classes"])
    config = SparseRefineConfig(baseline=start, refiner=RefinerConfig(num_classes=classes))
    model: Any = load_baseline(config, open_checkpoint(case.file("checkpoint.safetensors")))
    with torch.no_grad():
        if start.scores == "probabilities":
            yield from _mask2former(model, io)
            return
        if "ham_bases" in io:
            model.bases = io["ham_bases"]
        stages = model.features(io["input"])
        for index, stage in enumerate(stages):
            if f"backbone.{index}" in io:
                yield Check(f"backbone.{index}", stage, io[f"backbone.{index}"], DENSE)
        yield Check("head_logits", model.raw(io["input"]), io["head_logits"], DENSE)
        if "aux_logits" in io:
            yield Check("aux_logits", model.network.auxiliary_head(stages), io["aux_logits"], DENSE)
        yield Check("logits_at_input", model.scores(io["input"]), io["logits_at_input"], DENSE)


def _mask2former(model: Any, io: dict[str, torch.Tensor]) -> Iterator[Check]:
    out = model.run(io["input"])
    layers = [*out.auxiliary_logits, {"class_queries_logits": out.class_queries_logits, "masks_queries_logits": out.masks_queries_logits}]
    for key in io:
        name, _, index = key.rpartition(".")
        if name == "backbone":
            yield Check(key, out.encoder_hidden_states[int(index)], io[key], SCORES)
        elif name == "pixel_decoder.multi_scale":
            yield Check(key, out.pixel_decoder_hidden_states[int(index)], io[key], SCORES)
        elif key == "pixel_decoder.mask_features":
            yield Check(key, out.pixel_decoder_last_hidden_state, io[key], SCORES)
        elif name in ("cls_scores", "mask_preds"):
            kind = "class_queries_logits" if name == "cls_scores" else "masks_queries_logits"
            yield Check(key, layers[int(index)][kind], io[key], SCORES)
    yield Check("seg_scores", model.scores(io["input"]), io["seg_scores"], SCORES)
