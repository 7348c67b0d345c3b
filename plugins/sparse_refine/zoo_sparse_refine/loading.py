"""Builder of every model of the plugin."""

from __future__ import annotations

from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from zoo_core.checkpoint import TensorSource, init_random, load_into
from zoo_core.errors import CheckpointError, ConfigError
from zoo_sparse_refine import layouts
from zoo_sparse_refine.baselines import Baseline, build_baseline, is_mask2former, keymap_for
from zoo_sparse_refine.config import BaselineConfig, RefinerConfig, SparseRefineConfig
from zoo_sparse_refine.model import SparseRefine
from zoo_sparse_refine.pipeline import SparseRefineNetwork
from zoo_sparse_refine.refiner import Refiner

if TYPE_CHECKING:
    from zoo_core.interfaces.weights import BuildRequest, LoadReport, ResolvedWeights

OPTIONS = ("baseline", "refiner", "engine")
SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")


def build(request: BuildRequest) -> SparseRefine:
    """Dense baseline and refiner.

    Options of ``zoo.load``: ``baseline=PATH`` and ``refiner=PATH`` (either part from a file of its own), ``engine="kernels" | "spconv" | "spconv-triton"``.
    """
    check_options(request)
    parts = locate(request)
    config = config_for(request, parts)
    network_parts, seed = {}, request.weights.seed
    for name in ("baseline", "refiner"):
        source = layouts.open_part(parts[name]) if name in parts else None
        loader: Any = load_baseline if name == "baseline" else load_refiner
        network_parts[name] = loader(config, source, seed=seed, device=request.device, report=request.report)
    random = request.weights.random
    if "baseline" not in parts and not random:
        raise CheckpointError(f"{request.spec.name}: no weights of the dense baseline were given", fix="baseline=PATH, or a folder that holds both")
    refines = "refiner" in parts or (random and "baseline" not in parts)
    if not refines:
        request.report.warnings.append("the refiner has no weights (none was published): segment() gives the dense result; train one or pass refiner=PATH")
    network = SparseRefineNetwork(config, network_parts["baseline"], network_parts["refiner"]).eval()
    network.refiner.engine = request.options.get("engine") or "kernels"
    request.report.kernels |= bind(network, request.options.get("kernels") or {})
    request.config = config
    return SparseRefine(request.spec, config, network, request.report, refines=refines)


def check_options(request: BuildRequest) -> None:
    """Refuse options and number formats that this plugin does not have."""
    from zoo_sparse_refine.sparse.engines import ENGINES, import_spconv

    for name, value in request.options.items():
        if name in ("cache", "quant", "adapter") and value is not None:
            raise ConfigError(f"{request.spec.name} has no {name}", fix=f"leave out {name}=")
        if name not in (*OPTIONS, "kernels", "compile", "cache", "quant", "adapter"):
            raise ConfigError(f"{request.spec.name} does not know the option {name!r}", fix=f"known: {', '.join(OPTIONS)}")
    engine = request.options.get("engine")
    if engine is not None and engine not in ENGINES:
        raise ConfigError(f"engine {engine!r} is unknown", fix=f"one of {', '.join(ENGINES)}")
    if engine not in (None, "kernels"):
        import_spconv(str(engine))
    dtype = request.dtype_for("", torch.float32)
    if dtype not in (None, torch.float32):
        raise ConfigError(f"{request.spec.name} runs in float32, not {dtype}", fix="leave dtype out")


def locate(request: BuildRequest) -> dict[str, Path]:
    """Part -> file: named by the options, else found among the resolved weights by their keys."""
    parts = {name: Path(str(request.options[name])).expanduser() for name in ("baseline", "refiner") if request.options.get(name)}
    for name, path in parts.items():
        if not path.exists():
            raise CheckpointError(f"{name}={str(path)!r} does not exist", fix="give a file")
    weights: ResolvedWeights = request.weights
    if weights.random:
        return parts
    files = [path for name, path in weights.files.items() if name.endswith(SUFFIXES)] or ([weights.root] if weights.root else [])
    for path in files:
        with layouts.open_part(path) as source:
            kind = layouts.layout_of(source.keys())
        parts.setdefault("refiner" if kind in (layouts.REFINER, layouts.LIGHTNING) else "baseline", path)
        request.report.layout = request.report.layout or kind
    return parts


def config_for(request: BuildRequest, parts: dict[str, Path]) -> SparseRefineConfig:
    """The model's configuration, with what lies beside the weights over it.

    Beside them may lie this plugin's ``config.json``, a model dictionary of mmsegmentation (``type``), a configuration of transformers (``model_type``), or the
    reference's of the refiner (``backbone``, ``selector``).  Without one, the refiner's sizes are read from its keys.
    """
    config: SparseRefineConfig = request.config
    for name, path in parts.items():
        data = layouts.read_config(path)
        if data.get("format") == layouts.FORMAT:
            found = from_plain(data)
            config = replace(found, refiner=found.refiner if name == "refiner" or "refiner" not in parts else config.refiner)
        elif name == "baseline" and data.get("type"):
            config = replace(config, baseline=mmseg_config(config.baseline, data), refiner=replace(config.refiner, num_classes=_classes_of(data)))
        elif name == "baseline" and data.get("model_type"):
            config = replace(config, baseline=replace(config.baseline, kind="transformers", model=data, scores="logits"))
        elif name == "refiner" and isinstance(data.get("backbone"), dict):
            config = replace(config, refiner=reference_config(config.refiner, data))
        if name == "refiner" and not data:
            with layouts.open_part(path) as source:
                config = replace(config, refiner=infer_refiner(config.refiner, source))
    config = changed_by_user(request, config)
    if len(config.classes) != config.refiner.num_classes:
        config = replace(config, classes=[], palette=[])
    return config.check()


def changed_by_user(request: BuildRequest, config: SparseRefineConfig) -> SparseRefineConfig:
    """``config`` with every value in which the request differs from its model's entry: what a user overrides goes before what lies beside the weights."""
    from zoo_core.config import build_config

    if config is request.config:
        return config
    entry: Any = build_config(SparseRefineConfig, dict(request.spec.config), name=f"model {request.spec.name!r}")

    def over(found: Any, asked: Any, usual: Any) -> Any:
        changes = {}
        for item in fields(found):
            one, other, now = getattr(asked, item.name), getattr(usual, item.name), getattr(found, item.name)
            if is_dataclass(now):
                changes[item.name] = over(now, one, other)
            elif one != other:
                changes[item.name] = one
        return replace(found, **changes)

    return over(config, request.config, entry)


def from_plain(data: dict[str, Any]) -> SparseRefineConfig:
    """A configuration from the JSON that :func:`zoo_sparse_refine.layouts.save` writes."""
    values = {key: value for key, value in data.items() if key in {"classes", "palette", "ignore_index", "height", "width"}}
    return SparseRefineConfig(baseline=_dataclass(BaselineConfig, data.get("baseline")), refiner=_dataclass(RefinerConfig, data.get("refiner")), **values)


def _dataclass(cls: Any, data: Any) -> Any:
    known = asdict(cls())
    unknown = set(data or {}) - set(known)
    if unknown:
        raise ConfigError(f"config.json: {cls.__name__} has no field {sorted(unknown)[0]!r}", fix=f"known: {', '.join(known)}")
    return cls(**(data or {}))


def mmseg_config(base: BaselineConfig, data: dict[str, Any]) -> BaselineConfig:
    """A baseline from a model dictionary of mmsegmentation."""
    return replace(base, kind="mmseg", model=data, scores="probabilities" if is_mask2former(data) else "logits")


def _classes_of(model: dict[str, Any]) -> int:
    return int((model.get("decode_head") or {}).get("num_classes", 19))


def reference_config(base: RefinerConfig, data: dict[str, Any]) -> RefinerConfig:
    """A refiner from the reference's configuration (``selector``, ``featurizer``, ``backbone``, ``classifier``, ``ensembler``)."""
    backbone, selector = data["backbone"], data.get("selector") or {}
    return replace(
        base,
        num_classes=int((data.get("classifier") or {}).get("out_features", base.num_classes)),
        features=list((data.get("featurizer") or {}).get("features", base.features)),
        reps=list(backbone["reps"]),
        planes=list(backbone["nPlanes"]),
        ensembler=str((data.get("ensembler") or {}).get("type", base.ensembler)),
        threshold=float(selector.get("threshold", base.threshold)),
        bounds="batch",
        channel_order="bgr",
    )


def infer_refiner(base: RefinerConfig, source: TensorSource) -> RefinerConfig:
    """Sizes from the shapes of a refiner checkpoint: levels, blocks, channels, classes."""
    prefix = "model." if layouts.layout_of(source.keys()) == layouts.LIGHTNING else ""
    names = {key.removeprefix(prefix) for key in source}
    planes, reps, at = [int(source.shape(prefix + "backbone.net.0.kernel")[2])], [], "backbone.net.1"
    while True:
        middle = 0
        while f"{at}.{middle}.1.5.kernel" in names:
            middle += 2
        down = f"{at}.{middle}.1.2.kernel"
        if f"{at}.{middle}.1.6.kernel" not in names:
            reps.append(middle // 2)
            break
        reps.append(middle // 2)
        planes.append(int(source.shape(prefix + down)[2]))
        at = f"{at}.{middle}.1.3"
    gated = f"{prefix}ensembler.attn.0.weight" in set(source.keys())
    return replace(
        base,
        num_classes=int(source.shape(prefix + "classifier.weight")[0]),
        planes=planes,
        reps=reps,
        ensembler="gated" if gated else "entropy",
        hidden=int(source.shape(prefix + "ensembler.attn.0.weight")[0]) if gated else base.hidden,
    )


def load_baseline(config: SparseRefineConfig, source: TensorSource | None, *, seed: int = 0, device: Any = "cpu", report: LoadReport | None = None) -> Baseline:
    """The dense network in evaluation mode, from published keys, or seeded."""
    classes = config.refiner.num_classes
    if source is None:
        module: Any = init_random(lambda: build_baseline(config.baseline, classes), seed, device, torch.float32)
        return module.eval()
    with torch.device("meta"):
        module = build_baseline(config.baseline, classes)
    fixed = getattr(module, "fixed_buffers", None)
    load_into(module.network, source, keymap=keymap_for(module), dtype=torch.float32, device=device, buffers=fixed, component="baseline", report=report)
    return module.eval()


def load_refiner(config: SparseRefineConfig, source: TensorSource | None, *, seed: int = 0, device: Any = "cpu", report: LoadReport | None = None) -> Refiner:
    """The refiner in evaluation mode, from the reference's keys (plain or Lightning), or seeded."""
    if source is None:
        module: Any = init_random(lambda: Refiner(config.refiner), seed, device, torch.float32)
        return module.eval()
    with torch.device("meta"):
        module = Refiner(config.refiner)
    keymap = layouts.lightning_keymap() if layouts.layout_of(source.keys()) == layouts.LIGHTNING else None
    load_into(module, source, keymap=keymap, dtype=torch.float32, device=device, component="refiner", report=report)
    return module.eval()


def bind(network: SparseRefineNetwork, choices: Any = None) -> dict[str, Any]:
    """Choose ``sparse_conv2d`` and ``entropy_select`` for the network's device, once."""
    import zoo_kernels

    device = next(network.parameters()).device
    if device.type == "meta":
        return {}
    choices = choices or {}
    refiner = network.refiner
    refiner.convolve = zoo_kernels.select("sparse_conv2d", device=device, dtype=torch.float32, needs_grad=False, choice=choices.get("sparse_conv2d"))
    refiner.choose = zoo_kernels.select("entropy_select", device=device, dtype=torch.float32, needs_grad=False, choice=choices.get("entropy_select"))
    return {"sparse_conv2d": zoo_kernels.describe(refiner.convolve), "entropy_select": zoo_kernels.describe(refiner.choose)}
