"""Building the handle: published folders, single files, embedded models, random weights; export in either layout."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from zoo_core.checkpoint import TensorSource, init_random, load_into, open_checkpoint, save_checkpoint
from zoo_core.errors import CheckpointError, ConfigError, InputError
from zoo_core.interfaces.weights import BuildRequest, ResolvedWeights
from zoo_sana import layouts
from zoo_sana.binding import bind
from zoo_sana.config import SanaConfig, TransformerConfig, from_published, to_diffusers, to_original
from zoo_sana.controlnet import SanaControlNet, controlnet_keymap
from zoo_sana.model import Sana
from zoo_sana.transformer import SanaTransformer

SAMPLERS = {"flow-dpm-solver": "FlowDPMSolver", "flow-euler": "FlowEuler", "scm": "SCM"}
OPTIONS = ("kernels", "compile", "quant", "sampler", "offload_text_encoder", "autoencoder", "text_encoder")


def read_json(path: str | Path) -> dict[str, Any]:
    """A published JSON file; scheduler files may hold ``-Infinity``."""
    file = Path(path)
    if file.is_dir():
        for name in ("transformer/config.json", "config.json"):
            if (file / name).is_file():
                file = file / name
                break
        else:
            return {}
    return json.loads(file.read_text(encoding="utf-8"))


def transformer_files(weights: ResolvedWeights) -> list[Path]:
    """Weight files of the transformer: of the ``transformer`` folder when there is one, else of the root."""
    names = [n for n in weights.files if n.endswith((".safetensors", ".pth", ".pt", ".bin", ".safetensors.index.json", ".bin.index.json"))]
    inside = [n for n in names if n.startswith("transformer/")]
    chosen = inside or [n for n in names if "/" not in n or n.startswith("checkpoints/")]
    chosen = [n for n in chosen if not Path(n).name.startswith("io.")]
    index = [n for n in chosen if n.endswith(".index.json")]
    plain = [n for n in index if not any(mark in Path(n).name for mark in (".fp16.", ".bf16."))] or index
    if plain:
        return [weights.files[plain[0]]]
    native = [n for n in chosen if not any(mark in Path(n).name for mark in (".fp16.", ".bf16."))] or chosen
    if not native:
        raise CheckpointError(
            f"no transformer weights among {len(weights.files)} files",
            tried=sorted(weights.files)[:6],
            fix="give the published folder, or the transformer's file",
        )
    return [weights.files[n] for n in native]


def config_beside(weights: ResolvedWeights) -> dict[str, Any]:
    """The transformer's published configuration beside its weights ({} when there is none)."""
    for name in ("transformer/config.json", "config.json"):
        path = weights.files.get(name) or (weights.root / name if weights.root else None)
        if path is not None and Path(path).is_file():
            data = read_json(path)
            if "num_attention_heads" in data or "hidden_size" in data:
                return data
    return {}


def configure(request: BuildRequest, source: TensorSource | None) -> TransformerConfig:
    """Configuration of the transformer: what lies beside the weights describes them; else the entry's, with q/k norm and guidance read from the keys."""
    own: TransformerConfig = request.config.transformer
    if source is None:
        return own.check()
    data = (
        request.weights.config
        if request.weights.config.get("num_attention_heads") or request.weights.config.get("hidden_size")
        else config_beside(request.weights)
    )
    if data:
        return replace(from_published(data), gradient_checkpointing=own.gradient_checkpointing)
    keys = set(source.keys())
    if layouts.transformer_layout(keys) == layouts.ORIGINAL:
        return replace(
            own, qk_norm="blocks.0.attn.q_norm.weight" in keys, guidance_embed="cfg_embedder.mlp.0.weight" in keys, attention_eps=1e-8, cross_norm_eps=1e-6
        )
    return replace(own, qk_norm="transformer_blocks.0.attn1.norm_q.weight" in keys, guidance_embed="time_embed.guidance_embedder.linear_1.weight" in keys)


def load_transformer(
    config: TransformerConfig, source: TensorSource | None, *, seed: int = 0, device: Any = "cpu", dtype: Any = None, report: Any = None
) -> SanaTransformer:
    """The network in evaluation mode: mapped from ``source``, or seeded when that is None."""
    if source is None:
        module = init_random(lambda: SanaTransformer(config), seed, device, dtype)
        assert isinstance(module, SanaTransformer)
    else:
        with torch.device("meta"):
            module = SanaTransformer(config)
        layout = layouts.transformer_layout(source.keys())
        load_into(module, source, keymap=layouts.KEYMAPS[layout](config), dtype=dtype, device=device, component="transformer", report=report)
        if report is not None:
            report.layout = layout
    return module.eval().requires_grad_(False)


def build(request: BuildRequest) -> Sana:
    """Builder of every Sana model.

    Options: ``sampler`` (name), ``quant`` (``int8`` or ``int4``, weight only), ``offload_text_encoder``, ``autoencoder`` (registry name),
    ``text_encoder`` (folder).

    Raises:
        ConfigError: Unknown option.
        CheckpointError: The files hold no Sana transformer.
    """
    check_options(request)
    config: SanaConfig = request.config
    source = None if request.weights.random else open_checkpoint(transformer_files(request.weights))
    shape = configure(request, source)
    dtype = precision(request, "transformer", torch.float32)
    transformer = load_transformer(shape, source, seed=request.weights.seed, device=request.device, dtype=dtype, report=request.report)
    if request.options.get("quant"):
        from zoo_sana.quant import quantise

        request.report.cast["transformer quantisation"] = quantise(transformer, str(request.options["quant"]))
    request.report.kernels.update(bind(transformer, request.options.get("kernels")))
    scheduler = published_scheduler(request.weights)
    config = replace(config, transformer=shape, flow_shift=float(scheduler.get("flow_shift", scheduler.get("shift", config.flow_shift)) or config.flow_shift))
    if scheduler.get("_class_name") == "SCMScheduler":
        config = replace(config, sampler="scm")
    extra = request.weights.root / "zoo.json" if request.weights.root else None
    if extra is not None and extra.is_file():
        config = replace(config, **{k: v for k, v in read_json(extra).items() if k in ("autoencoder", "text_tokens", "instruction", "lowercase", "sampler")})
    if request.options.get("sampler"):
        config = replace(config, sampler=str(request.options["sampler"]))
    handle = Sana(request.spec, config, {"transformer": transformer}, request.report)
    handle.offload_text_encoder = bool(request.options.get("offload_text_encoder", False))
    handle.make_sampler = functools.partial(make_sampler, config)
    handle.make_text_encoder = functools.partial(make_text_encoder, request, config)
    handle.make_autoencoder = functools.partial(make_autoencoder, request, config)
    control = control_source(request.weights)
    if control is not None or (request.weights.random and config.control_blocks):
        handle.components["controlnet"] = load_controlnet(request, shape, control, dtype, config)
    return handle


def check_options(request: BuildRequest) -> None:
    for name, value in request.options.items():
        if name in ("cache", "adapter") and value is not None:
            raise ConfigError(f"{request.spec.name} has no {name}", fix=f"leave out {name}=")
        if name not in (*OPTIONS, "cache", "adapter"):
            raise ConfigError(f"{request.spec.name} does not know the option {name!r}", fix=f"known: {', '.join(OPTIONS)}")


def precision(request: BuildRequest, component: str, default: torch.dtype) -> torch.dtype:
    """The user's dtype, else the card's; a CPU runs fp16 checkpoints in fp32 (they lose range in bf16), and text encoder and autoencoder are never fp16."""
    asked = component in request.dtype or "" in request.dtype
    dtype = request.dtype_for(component, default) or default
    if component != "transformer" and dtype == torch.float16:
        dtype = torch.float32 if request.device.type in ("cpu", "meta") else torch.bfloat16
    if not asked and request.device.type in ("cpu", "meta") and dtype == torch.float16:
        request.report.warnings.append(f"{component}: float16 weights run in float32 on a CPU")
        return torch.float32
    return dtype


def published_scheduler(weights: ResolvedWeights) -> dict[str, Any]:
    path = weights.root / "scheduler" / "scheduler_config.json" if weights.root else None
    return read_json(path) if path is not None and path.is_file() else {}


def make_sampler(config: SanaConfig) -> Any:
    """The configured sampler."""
    import zoo_core.samplers as samplers

    if config.sampler not in SAMPLERS:
        raise InputError(f"sampler {config.sampler!r} is unknown", fix=f"one of {', '.join(SAMPLERS)}")
    kind = getattr(samplers, SAMPLERS[config.sampler])
    return kind() if config.sampler == "scm" else kind(shift=config.flow_shift)


def make_text_encoder(request: BuildRequest, config: SanaConfig) -> Any:
    """Gemma-2 from the folder, from ``text_encoder=FOLDER``, or random for random models."""
    from zoo_sana import text

    dtype = precision(request, "text_encoder", torch.float32)
    given = request.options.get("text_encoder")
    root = request.weights.root
    if given is None and request.weights.random:
        return text.random_text_encoder(
            SMALL_GEMMA, config.transformer.caption_channels, seed=request.weights.seed, dtype=dtype, device=request.device, tokens=config.text_tokens
        )
    folder = Path(given) if given is not None else root / "text_encoder" if root is not None else None
    if folder is None or not (folder / "config.json").is_file():
        raise CheckpointError(
            f"model {request.spec.name!r}: its files hold no text encoder",
            tried=["text_encoder/config.json beside the transformer"],
            fix="load the published diffusers folder, pass text_encoder=FOLDER (gemma-2-2b-it), or generate(..., text=(features, mask))",
        )
    tokenizer = folder.parent / "tokenizer" if (folder.parent / "tokenizer").is_dir() else folder
    return text.load_text_encoder(folder, tokenizer, dtype=dtype, device=request.device, tokens=config.text_tokens)


SMALL_GEMMA = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 64, "query_pre_attn_scalar": 16}


def make_autoencoder(request: BuildRequest, config: SanaConfig) -> Any:
    """The autoencoder by registry name, with the weights of the ``vae`` folder where there is one."""
    name = str(request.options.get("autoencoder") or config.autoencoder)
    dtype = precision(request, "autoencoder", torch.float32)
    folder = request.weights.root / "vae" if request.weights.root else None
    options: dict[str, Any] = {"device": request.device, "dtype": dtype}
    if folder is not None and folder.is_dir():
        options["weights"] = folder
    elif request.weights.random:
        options.update(weights="random", seed=request.weights.seed)
    return request.registry.build("autoencoder", name, **options)


def control_source(weights: ResolvedWeights) -> TensorSource | None:
    names = [n for n in weights.files if n.startswith("controlnet/") and n.endswith((".safetensors", ".bin", ".index.json"))]
    index = [n for n in names if n.endswith(".index.json")] or names
    return open_checkpoint([weights.files[n] for n in index]) if index else None


def load_controlnet(request: BuildRequest, shape: TransformerConfig, source: TensorSource | None, dtype: Any, config: SanaConfig) -> SanaControlNet:
    """The ControlNet's copied blocks."""
    copies = replace(shape, layers=config.control_blocks or 7)
    if source is None:
        module = init_random(lambda: SanaControlNet(copies), request.weights.seed + 1, request.device, dtype)
        assert isinstance(module, SanaControlNet)
        return module.eval()
    path = request.weights.root / "controlnet" / "config.json" if request.weights.root else None
    if path is not None and path.is_file():
        copies = from_published(read_json(path))
    return controlnet_from(source, copies, dtype=dtype, device=request.device, report=request.report)


def controlnet_from(source: TensorSource, config: TransformerConfig, *, dtype: Any = None, device: Any = "cpu", report: Any = None) -> SanaControlNet:
    """A ControlNet from an open checkpoint in the published layout."""
    with torch.device("meta"):
        module = SanaControlNet(config)
    load_into(module, source, keymap=controlnet_keymap(config), dtype=dtype, device=device, component="controlnet", report=report)
    return module.eval()


def save_transformer(
    model: Sana | SanaTransformer, folder: str | os.PathLike[str], *, layout: str = layouts.DIFFUSERS, extra: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write the transformer's weights and ``config.json`` in a published layout; round trips are exact."""
    module = model if isinstance(model, SanaTransformer) else model.transformer
    if layout not in layouts.KEYMAPS:
        raise ConfigError(f"layout {layout!r} is unknown", fix=f"choose from {', '.join(layouts.KEYMAPS)}")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    name = "diffusion_pytorch_model.safetensors" if layout == layouts.DIFFUSERS else "model.safetensors"
    state = {key: value.detach().contiguous().cpu() for key, value in module.state_dict().items()}
    files = save_checkpoint(state, target / name, keymap=layouts.export_keymap(module.config, layout))
    data = to_diffusers(module.config) if layout == layouts.DIFFUSERS else to_original(module.config)
    temporary = target / "config.json.part"
    temporary.write_text(json.dumps({**data, **(extra or {})}, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, target / "config.json")
    return [*files, target / "config.json"]
