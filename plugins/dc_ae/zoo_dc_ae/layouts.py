"""Key maps between the published checkpoint layouts and the modules, and the configuration that bare keys reveal.

* ``dc-ae-diffusers``: files for ``AutoencoderDC``;
* ``dc-ae-original``: files of the reference repository;
* ``dc-ae-native``: the modules' own keys (what our recipe writes);
* ``dc-ae-diffusion``: one file with ``autoencoder.*`` (original layout) and ``diffusion_model.*``, or a diffusion model alone without prefix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from zoo_core.checkpoint import Drop, Fuse, KeyMap, Rename, Reshape, Table, TensorSource
from zoo_core.errors import CheckpointError
from zoo_dc_ae.config import AutoencoderConfig, CoderConfig
from zoo_dc_ae.diffusion.config import DiffusionConfig

DIFFUSERS, ORIGINAL, NATIVE, DIFFUSION = "dc-ae-diffusers", "dc-ae-original", "dc-ae-native", "dc-ae-diffusion"
_SIDES = (("encoder", "down_blocks"), ("decoder", "up_blocks"))


def diffusers_keymap(config: AutoencoderConfig) -> KeyMap:
    """diffusers keys to module keys.

    ``to_q``, ``to_k`` and ``to_v`` are thirds of the fused output channels (which are interleaved per head), not queries, keys and values; put together again
    they are exactly the fused weight.
    """
    table: dict[str, str] = {}
    for side, blocks in _SIDES:
        theirs, ours = f"{side}.{blocks}.{{s:int}}.{{j:int}}", f"{side}.stages.{{s:int}}.{{j:int}}"
        table |= {
            f"{theirs}.attn.to_qkv_multiscale.{{i:int}}.proj_in.weight": f"{ours}.attn.aggregations.{{i:int}}.depthwise.weight",
            f"{theirs}.attn.to_qkv_multiscale.{{i:int}}.proj_out.weight": f"{ours}.attn.aggregations.{{i:int}}.pointwise.weight",
            f"{theirs}.attn.to_out.weight": f"{ours}.attn.proj.weight",
            f"{theirs}.attn.norm_out.{{x}}": f"{ours}.attn.norm.{{x}}",
            f"{theirs}.conv_out.conv_inverted.{{x}}": f"{ours}.ffn.expand.{{x}}",
            f"{theirs}.conv_out.conv_depth.{{x}}": f"{ours}.ffn.depthwise.{{x}}",
            f"{theirs}.conv_out.conv_point.{{x}}": f"{ours}.ffn.project.{{x}}",
            f"{theirs}.conv_out.norm.{{x}}": f"{ours}.ffn.norm.{{x}}",
            f"{theirs}.{{rest*}}": f"{ours}.{{rest*}}",
        }
    return KeyMap(
        [
            Fuse(["{p*}.attn.to_q.weight", "{p*}.attn.to_k.weight", "{p*}.attn.to_v.weight"], "{p*}.attn.qkv.weight", dim=0),
            Table(table),
            Reshape("{p*}.attn.qkv.weight", "o i -> o i 1 1"),
            Reshape("{p*}.attn.proj.weight", "o i -> o i 1 1"),
        ]
    )


def original_keymap(config: AutoencoderConfig) -> KeyMap:
    """Reference-repository keys to module keys."""
    ends = {
        "encoder.project_out.main.op_list.0.conv.{x}" if config.encoder.latent_shortcut else "encoder.project_out.op_list.0.conv.{x}": "encoder.conv_out.{x}",
        "decoder.project_in.main.conv.{x}" if config.decoder.latent_shortcut else "decoder.project_in.conv.{x}": "decoder.conv_in.{x}",
        "decoder.project_out.op_list.0.{x}": "decoder.norm_out.{x}",
        "decoder.project_out.op_list.2.conv.{rest*}": "decoder.conv_out.{rest*}",
    }
    strided_in = config.encoder.depths[0] == 0 and config.encoder.resample == "conv"
    ends["encoder.project_in.conv.{rest*}"] = "encoder.conv_in.conv.{rest*}" if strided_in else "encoder.conv_in.{rest*}"
    table: dict[str, str] = {}
    for side, coder in (("encoder", config.encoder), ("decoder", config.decoder)):
        theirs, ours = f"{side}.stages.{{s:int}}.op_list.{{j:int}}", f"{side}.stages.{{s:int}}.{{j:int}}"
        resample = "main.conv" if coder.resample == "conv" else "main.conv.conv"
        table |= {
            f"{theirs}.main.conv1.conv.{{x}}": f"{ours}.conv1.{{x}}",
            f"{theirs}.main.conv2.conv.{{x}}": f"{ours}.conv2.{{x}}",
            f"{theirs}.main.conv2.norm.{{x}}": f"{ours}.norm.{{x}}",
            f"{theirs}.{resample}.{{x}}": f"{ours}.conv.{{x}}",
            f"{theirs}.context_module.main.qkv.conv.{{x}}": f"{ours}.attn.qkv.{{x}}",
            f"{theirs}.context_module.main.aggreg.{{i:int}}.0.{{x}}": f"{ours}.attn.aggregations.{{i:int}}.depthwise.{{x}}",
            f"{theirs}.context_module.main.aggreg.{{i:int}}.1.{{x}}": f"{ours}.attn.aggregations.{{i:int}}.pointwise.{{x}}",
            f"{theirs}.context_module.main.proj.conv.{{x}}": f"{ours}.attn.proj.{{x}}",
            f"{theirs}.context_module.main.proj.norm.{{x}}": f"{ours}.attn.norm.{{x}}",
            f"{theirs}.local_module.main.inverted_conv.conv.{{x}}": f"{ours}.ffn.expand.{{x}}",
            f"{theirs}.local_module.main.depth_conv.conv.{{x}}": f"{ours}.ffn.depthwise.{{x}}",
            f"{theirs}.local_module.main.point_conv.conv.{{x}}": f"{ours}.ffn.project.{{x}}",
            f"{theirs}.local_module.main.point_conv.norm.{{x}}": f"{ours}.ffn.norm.{{x}}",
        }
    return KeyMap([Table(ends | table)])


def diffusion_keymap(config: DiffusionConfig) -> KeyMap:
    """``diffusion_model.*`` of a combined file (or a bare diffusion checkpoint) to module keys."""
    return KeyMap([Drop("autoencoder.{rest*}", "belongs to the autoencoder"), Rename("diffusion_model.{rest*}", "{rest*}")])


def embedded_autoencoder_keymap(config: AutoencoderConfig) -> KeyMap:
    """``autoencoder.*`` of a combined file to the autoencoder's module keys."""
    parts = [Drop("diffusion_model.{rest*}", "belongs to the diffusion model"), Rename("autoencoder.{rest*}", "{rest*}")]
    return KeyMap(parts) + original_keymap(config)


KEYMAPS: dict[str, Callable[[AutoencoderConfig], KeyMap]] = {
    DIFFUSERS: diffusers_keymap,
    ORIGINAL: original_keymap,
    NATIVE: lambda config: KeyMap(),
}
DETECT = {
    DIFFUSERS: (r"^encoder\.down_blocks\.",),
    ORIGINAL: (r"^encoder\.stages\.\d+\.op_list\.",),
    NATIVE: (r"^encoder\.stages\.\d+\.\d+\.",),
    DIFFUSION: (r"^(diffusion_model\.)?(in_blocks|blocks)\.0\.attn\.qkv\.weight$",),
}


def autoencoder_layout(keys: Iterable[str]) -> str:
    """Which of the three autoencoder layouts ``keys`` have; :class:`~zoo_core.errors.CheckpointError` when none."""
    keys = list(keys)
    for name in KEYMAPS:
        if any(re.search(DETECT[name][0], key) for key in keys):
            return name
    sample = ", ".join(keys[:4])
    raise CheckpointError(
        "the checkpoint is not a DC-AE autoencoder",
        tried=[f"{len(keys)} keys: {sample}", f"known layouts: {', '.join(KEYMAPS)}"],
        fix="give a DC-AE file, or load it with the model it belongs to",
    )


# -- configuration from bare keys --------------------------------------------------------------------------------------------


def infer_config(source: TensorSource, *, base: AutoencoderConfig | None = None) -> AutoencoderConfig:
    """The configuration that keys and shapes reveal, in any of the three layouts.

    What tensors cannot tell is assumed as in all published models: SiLU where a stage has RMS norm, ReLU where it has BatchNorm, both latent shortcuts.
    ``scaling_factor`` and ``head_dim`` come from ``base`` (default: 1.0 and 32).

    Raises:
        CheckpointError: The keys are not those of an autoencoder.
    """
    layout = autoencoder_layout(source.keys())
    # both readings of the ambiguous keys are tried: the key map differs only in how a strided convolution is spelt
    guesses = [AutoencoderConfig(), AutoencoderConfig()]
    guesses[1].encoder.resample = "pixel_unshuffle"
    strided_first = AutoencoderConfig()
    strided_first.encoder.depths = [0, *strided_first.encoder.depths[1:]]
    for guess in (*guesses, strided_first):
        shapes = {key: tuple(view.shape(key)) for view in [KEYMAPS[layout](guess).apply(source)] for key in view}
        try:
            config = _infer(shapes)
        except (KeyError, ValueError):
            continue
        config.scaling_factor = base.scaling_factor if base else 1.0
        config.head_dim = base.head_dim if base else 32
        return config.check()
    raise CheckpointError("the shapes of the checkpoint do not describe a DC-AE autoencoder", fix="put the published config.json beside the weights")


def _infer(shapes: dict[str, tuple[int, ...]]) -> AutoencoderConfig:
    if any("op_list" in key or ".main." in key for key in shapes):
        raise ValueError("unmapped keys are left")
    encoder = _infer_coder(shapes, "encoder", last=True)
    decoder = _infer_coder(shapes, "decoder", last=False)
    latent = shapes["encoder.conv_out.weight"][0]
    encoder.latent_shortcut = encoder.widths[-1] % latent == 0
    decoder.latent_shortcut = decoder.widths[-1] % latent == 0
    channels = shapes["encoder.conv_in.weight" if "encoder.conv_in.weight" in shapes else "encoder.conv_in.conv.weight"][1]
    return AutoencoderConfig(in_channels=channels, latent_channels=latent, encoder=encoder, decoder=decoder)


def _infer_coder(shapes: dict[str, tuple[int, ...]], side: str, *, last: bool) -> CoderConfig:
    """``last``: the resampling block is the last of a stage (encoder) rather than the first."""
    found: dict[int, dict[int, set[str]]] = {}
    for key in shapes:
        match = re.match(rf"{side}\.stages\.(\d+)\.(\d+)\.(.+)", key)
        if match:
            found.setdefault(int(match[1]), {}).setdefault(int(match[2]), set()).add(match[3])
    stages = max(found) + 1
    values: dict[str, list[Any]] = {name: [] for name in ("widths", "depths", "blocks", "scales", "norms")}
    for stage in range(stages):
        blocks = [(index, names) for index, names in sorted(found.get(stage, {}).items()) if "conv.weight" not in names]
        values["depths"].append(len(blocks))
        if not blocks:  # only the first stage may be empty; width and norm are free: those of the published models
            values["widths"].append(0)
            values["blocks"].append("res")
            values["scales"].append([])
            values["norms"].append("rms_norm")
            continue
        index, names = blocks[0]
        prefix = f"{side}.stages.{stage}.{index}."
        attention = "attn.qkv.weight" in names
        values["widths"].append(shapes[prefix + ("attn.qkv.weight" if attention else "conv1.weight")][1])
        values["blocks"].append("vit" if attention else "res")
        kernels = [shapes[f"{prefix}attn.aggregations.{i}.depthwise.weight"][-1] for i in range(sum("depthwise" in n and "aggreg" in n for n in names))]
        values["scales"].append(kernels)
        norm = "attn.norm.running_mean" if attention else "norm.running_mean"
        values["norms"].append("batch_norm" if norm in names else "rms_norm")
    if not values["depths"][0]:
        values["widths"][0], values["norms"][0] = values["widths"][1] // 2, values["norms"][1]
    activations = ["relu" if norm == "batch_norm" else "silu" for norm in values["norms"]]
    return CoderConfig(**values, activations=activations, resample=_infer_resample(shapes, side, found, values["widths"], last))


def _infer_resample(shapes: dict[str, tuple[int, ...]], side: str, found: dict[int, dict[int, set[str]]], widths: list[int], last: bool) -> str:
    for stage, blocks in sorted(found.items()):
        for index, names in blocks.items():
            if "conv.weight" in names:
                outputs = shapes[f"{side}.stages.{stage}.{index}.conv.weight"][0]
                if last:
                    return "conv" if outputs == widths[stage + 1] else "pixel_unshuffle"
                return "interpolate" if outputs == widths[stage] else "pixel_shuffle"
    raise ValueError("no resampling block")
