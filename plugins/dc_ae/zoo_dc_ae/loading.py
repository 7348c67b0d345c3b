"""Builder of the autoencoder, and export in either published layout."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from zoo_core.checkpoint import TensorSource, init_random, load_into, open_checkpoint, save_checkpoint
from zoo_core.errors import ConfigError
from zoo_dc_ae import layouts, published
from zoo_dc_ae.autoencoder import DCAE
from zoo_dc_ae.binding import bind_kernels
from zoo_dc_ae.config import AutoencoderConfig
from zoo_dc_ae.model import Autoencoder, warn_float16

if TYPE_CHECKING:
    from zoo_core.interfaces.weights import BuildRequest, LoadReport, ResolvedWeights

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
OPTIONS = ("channels_last", "gradient_checkpointing")


def weight_files(weights: ResolvedWeights) -> list[Path]:
    """The weight files among what was resolved (not ``config.json``)."""
    files = [path for name, path in weights.files.items() if name.endswith((*WEIGHT_SUFFIXES, ".index.json"))]
    index = [path for path in files if path.name.endswith(".index.json")]
    return index or files


def open_weights(weights: ResolvedWeights) -> TensorSource:
    """Open the resolved files (or the folder when no file is listed)."""
    return open_checkpoint(weight_files(weights) or [weights.root] if weights.root else weight_files(weights))


def config_for(request: BuildRequest, source: TensorSource) -> AutoencoderConfig:
    """Which configuration the weights have: the published one beside them, else the model's own if its shapes fit, else the one the keys reveal.

    Overrides given by the user were already applied to ``request.config``; where the weights lie beside a configuration of their own, that one describes them.
    """
    own: AutoencoderConfig = request.config
    data = request.weights.config or _config_beside(request.weights)
    if data:
        found = published.from_published(data)
        if found is None:
            named = _published_config(request, str(data.get("model_name", "")))
            return keep_runtime(named or own, own)
        return keep_runtime(found, own)
    guess = layouts.infer_config(source, base=own)
    if comparable(guess) != comparable(own):
        request.report.warnings.append("no config.json beside the weights: the configuration was read from the shapes, the scaling factor is the model's own")
        return keep_runtime(guess, own)
    return own


def comparable(config: AutoencoderConfig) -> Any:
    """What shapes can tell about a configuration (activations and runtime switches cannot be seen)."""

    def side(coder: Any) -> Any:
        empty = coder.depths[0] == 0
        skip = slice(1, None) if empty else slice(None)
        scales = [list(s) if block == "vit" else [] for s, block in zip(coder.scales, coder.blocks)]
        return (coder.widths[skip], coder.depths, coder.blocks[skip], scales, coder.norms[skip], coder.resample)

    return (config.in_channels, config.latent_channels, side(config.encoder), side(config.decoder))


def keep_runtime(found: AutoencoderConfig, own: AutoencoderConfig) -> AutoencoderConfig:
    """``found`` with the switches that do not describe weights taken from ``own``."""
    return replace(found, gradient_checkpointing=own.gradient_checkpointing)


def _config_beside(weights: ResolvedWeights) -> dict[str, Any]:
    path = weights.files.get("config.json") or (weights.root / "config.json" if weights.root else None)
    return published.read_json(path) if path is not None and path.is_file() else {}


def _published_config(request: BuildRequest, name: str) -> AutoencoderConfig | None:
    """The configuration of a model that ``config.json`` only names."""
    if not name or name == request.spec.name or request.registry is None:
        return None
    from zoo_core.errors import UnknownNameError

    try:
        spec = request.registry.model(name)
    except UnknownNameError:
        return None
    return to_config(AutoencoderConfig, spec.config).check()


def to_config(cls: Any, data: Any) -> Any:
    """A plain mapping as an instance of a configuration dataclass (nested ones included)."""
    from typing import get_type_hints

    hints = get_type_hints(cls)
    known = {item.name for item in fields(cls)}
    unknown = set(data) - known
    if unknown:
        raise ConfigError(f"{cls.__name__} has no field {sorted(unknown)[0]!r}", fix=f"known: {', '.join(sorted(known))}")
    default = cls()
    values = {}
    for key, value in data.items():
        if is_dataclass(hints[key]) and not is_dataclass(value):
            current = getattr(default, key)
            value = replace(current, **{k: to_config(type(getattr(current, k)), v) if is_dataclass(getattr(current, k)) else v for k, v in value.items()})
        values[key] = value
    return replace(default, **values)


def load_autoencoder(
    config: AutoencoderConfig,
    source: TensorSource | None,
    *,
    keymap: Any = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    report: LoadReport | None = None,
) -> DCAE:
    """The module in evaluation mode, filled from ``source`` (mapped, not copied where dtype and device fit), or seeded when that is None."""
    if source is None:
        module = init_random(lambda: DCAE(config), seed, device, dtype)
        assert isinstance(module, DCAE)
    else:
        with torch.device("meta"):
            module = DCAE(config)
        keymap = keymap or layouts.KEYMAPS[layouts.autoencoder_layout(source.keys())](config)
        load_into(module, source, keymap=keymap, dtype=dtype, device=device, component="autoencoder", report=report)
    return module.eval()


def build_autoencoder(request: BuildRequest) -> Autoencoder:
    """Builder of every model with the task ``image-autoencoder``.

    Options: ``channels_last`` (default: on), ``gradient_checkpointing``, ``kernels`` and ``compile`` (handled by the core).
    """
    check_options(request)
    dtype = request.dtype_for("autoencoder", torch.float32)
    config = replace(request.config, gradient_checkpointing=bool(request.options.get("gradient_checkpointing", request.config.gradient_checkpointing)))
    request.config = config
    source = None if request.weights.random else open_weights(request.weights)
    if source is not None:
        config = config_for(request, source)
        request.report.layout = layouts.autoencoder_layout(source.keys())
    module = load_autoencoder(config.check(), source, seed=request.weights.seed, device=request.device, dtype=dtype, report=request.report)
    if dtype == torch.float16 and all(norm == "rms_norm" for norm in config.decoder.norms):
        request.report.warnings.append(warn_float16(request.spec.name))
    finish(module, request)
    return Autoencoder(request.spec, config, module, request.report)


def finish(module: DCAE, request: BuildRequest) -> None:
    """Memory format and kernels, as the options ask."""
    if request.options.get("channels_last", True):
        module.to(memory_format=torch.channels_last)
    bind_kernels(module, request)


def check_options(request: BuildRequest, extra: Iterable[str] = ()) -> None:
    """Refuse options that this plugin does not know."""
    core = ("kernels", "compile", "cache", "quant", "adapter")
    known = (*OPTIONS, *extra)
    for name, value in request.options.items():
        if name not in known and name not in core:
            raise ConfigError(f"{request.spec.name} does not know the option {name!r}", fix=f"known: {', '.join(sorted(known))}")
        if name in ("cache", "quant", "adapter") and value is not None:
            raise ConfigError(f"{request.spec.name} has no {name}", fix=f"leave out {name}=")


def save_autoencoder(model: Autoencoder | DCAE, folder: str | os.PathLike[str], *, layout: str = layouts.DIFFUSERS) -> list[Path]:
    """Write ``config.json`` and the weights in a published layout; the round trip is exact.

    Args:
        model: Handle or module.
        folder: Created when absent.
        layout: ``"dc-ae-diffusers"``, ``"dc-ae-original"`` or ``"dc-ae-native"``.

    Raises:
        ConfigError: Unknown layout, or one that cannot express the configuration.
    """
    module = model if isinstance(model, DCAE) else model.network
    if layout not in layouts.KEYMAPS:
        raise ConfigError(f"layout {layout!r} is unknown", fix=f"choose from {', '.join(layouts.KEYMAPS)}")
    data = published.to_original(module.config) if layout == layouts.ORIGINAL else published.to_diffusers(module.config)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    name = "diffusion_pytorch_model.safetensors" if layout == layouts.DIFFUSERS else "model.safetensors"
    state = {key: value.detach().contiguous().cpu() for key, value in module.state_dict().items()}
    files = save_checkpoint(state, target / name, keymap=layouts.KEYMAPS[layout](module.config))
    config_file = target / "config.json"
    temporary = config_file.with_suffix(".json.part")
    temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, config_file)
    return [*files, config_file]
