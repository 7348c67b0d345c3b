"""Building a :class:`~zoo_llm.model.LanguageModel` from local files.

Backbones and tokenizers are transformers' own classes; nothing of the model code is copied or patched, and code that lies beside weights is never run.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from zoo_core.errors import CheckpointError, InputError
from zoo_core.interfaces import BuildRequest
from zoo_core.loading import quiet_bars
from zoo_llm.compose import cache_plan, component, scale_positions
from zoo_llm.model import LanguageModel

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "smollm3", "granite", "olmo2")
"""Model types whose attention goes through transformers' attention registry with ordinary kv-heads (any other still loads with ``cache=None``)."""


def build_causal_lm(request: BuildRequest) -> LanguageModel:
    """Builder of every causal language model entry.

    Options (``zoo.load(..., cache=, quant=, adapter=, rope=)``) are composed as
    :mod:`zoo_llm.compose` describes; ``attention="sdpa"|"eager"`` chooses transformers'
    attention for ``cache=None``.

    Raises:
        InputError: Unknown option or part.
        CheckpointError: The folder has no configuration.
    """
    import torch

    options = {k: v for k, v in request.options.items() if v is not None}
    cache, quant, adapter, rope, kernels = (options.pop(k, None) for k in ("cache", "quant", "adapter", "rope", "kernels"))
    attention = options.pop("attention", "sdpa")
    compiled = options.pop("compile", False)
    if options:
        raise InputError(
            f"model {request.spec.name!r}: unknown options {sorted(options)}", fix="known options: cache, quant, adapter, rope, attention, compile"
        )
    begin = time.perf_counter()
    dtype = request.dtype_for("model") or torch.float32
    if request.weights.random:
        model, tokenizer = random_model(request, dtype, attention, rope)
    else:
        model, tokenizer = read_model(request, dtype, attention, rope)
    request.report.seconds["read"] = time.perf_counter() - begin
    model.eval().requires_grad_(False)
    if adapter is not None:
        build, extra = component(request.registry, "adapter", adapter)
        model = build(model, **extra)
    if quant is not None:
        build, extra = component(request.registry, "quant", quant)
        model = build(model, **extra)
    model.to(request.device)
    parts: dict[str, Any] = {"model": model}
    if tokenizer is not None:
        tokenizer.padding_side = "left"
        parts["tokenizer"] = tokenizer
    handle = LanguageModel(request.spec, model.config, parts, request.report)
    handle.kernel_choices = dict(kernels or {})
    handle.set_cache(cache_plan(request.registry, handle, cache))
    if compiled:
        model.forward = torch.compile(model.forward)
    return handle


def config_of(request: BuildRequest, rope: Any) -> Any:
    """transformers configuration from the entry's ``config`` part (and overrides), or from the folder."""
    from transformers import AutoConfig

    values = dict(request.config or {}) if isinstance(request.config, dict) else {}
    if not request.weights.random and request.weights.root is not None and (request.weights.root / "config.json").exists():
        config = AutoConfig.from_pretrained(request.weights.root, trust_remote_code=False, local_files_only=True)
        published = request.spec.config
        for key, value in values.items():  # the file describes its weights; only what the user changed goes above it
            if key not in published or published[key] != value:
                setattr(config, key, value)
    else:
        model_type = values.pop("model_type", None)
        if model_type is None:
            raise CheckpointError(f"model {request.spec.name!r}: no config.json beside the weights and none in its entry", fix="give a folder with config.json")
        config = AutoConfig.for_model(model_type, **values)
    if rope is not None:
        scale_positions(config, rope)
    return config


def random_model(request: BuildRequest, dtype: Any, attention: str, rope: Any) -> tuple[Any, Any]:
    """Seeded random weights, no files; the tokenizer is a byte-level one so that text goes in and out."""
    import torch
    from transformers import AutoModelForCausalLM

    from zoo_llm.bytes_tokenizer import byte_tokenizer

    config = config_of(request, rope)
    with torch.random.fork_rng(), torch.device("meta" if request.device.type == "meta" else "cpu"):
        torch.manual_seed(request.weights.seed)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    return model, byte_tokenizer() if config.get_text_config(decoder=True).vocab_size >= 260 else None


def read_model(request: BuildRequest, dtype: Any, attention: str, rope: Any) -> tuple[Any, Any]:
    """Weights and tokenizer from a folder of transformers files, or from one GGUF file."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    root = request.weights.root
    assert root is not None
    gguf = sorted(path for path in request.weights.files.values() if path.suffix == ".gguf")
    if gguf:
        from zoo_llm.gguf import converted

        root = converted(gguf[0])
        request.weights.root = root
    config = config_of(request, rope)
    settings: dict[str, Any] = {
        "config": config,
        "dtype": dtype,
        "attn_implementation": attention,
        "local_files_only": True,
        "weights_only": True,
        "output_loading_info": True,
    }
    single = other_named_file(root)
    if single is not None:
        from zoo_core.checkpoint import open_checkpoint

        source = open_checkpoint(single)
        settings["state_dict"] = {key: source.get(key) for key in source.keys()}  # noqa: SIM118 - not a mapping
    family = AutoModelForCausalLM._model_mapping[type(config)]  # the class itself: never code from the folder
    with quiet_bars():
        model, info = family.from_pretrained(None if single is not None else root, **settings)
    problems = {k: sorted(v) for k, v in info.items() if k in ("missing_keys", "unexpected_keys", "mismatched_keys") and v}
    if problems:
        shown = "; ".join(f"{k.replace('_', ' ')}: {', '.join(map(str, v[:5]))}{' ...' if len(v) > 5 else ''}" for k, v in problems.items())
        raise CheckpointError(
            f"model {request.spec.name!r}: the checkpoint does not fit its config.json ({shown})", fix="check that config.json belongs to these weights"
        )
    tokenizer = None
    if any((Path(root) / name).exists() for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")):
        tokenizer = AutoTokenizer.from_pretrained(root, trust_remote_code=False, local_files_only=True)
    return model, tokenizer


STANDARD_NAMES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def other_named_file(root: Path) -> Path | None:
    """The only weight file of a folder that has none under transformers' standard names (None when it has)."""
    if any((root / name).exists() for name in STANDARD_NAMES):
        return None
    found = sorted(
        path for path in root.iterdir() if path.suffix in (".safetensors", ".bin", ".pth") and not path.name.startswith(("io.", "training_args", "adapter_"))
    )
    if len(found) != 1:
        raise CheckpointError(
            f"folder {root.name!r} has {len(found)} weight files under other names ({', '.join(f.name for f in found)})",
            fix=f"name the file {STANDARD_NAMES[0]}",
        )
    return found[0]
