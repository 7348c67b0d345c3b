"""The two published forms of ``config.json``, and back.

* diffusers: the ``AutoencoderDC`` fields;
* original: ``{"model_name": ...}`` (a published name), or a dot-list / resolved tree of the reference ``DCAE`` class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo_core.errors import CheckpointError, ConfigError
from zoo_dc_ae.config import AutoencoderConfig, CoderConfig

_BLOCKS_ORIGINAL = {"ResBlock": ("res", []), "EViT_GLU": ("vit", []), "EViTS5_GLU": ("vit", [5])}
_NORMS_ORIGINAL = {"trms2d": "rms_norm", "bn2d": "batch_norm"}
_BLOCKS_DIFFUSERS = {"ResBlock": "res", "EfficientViTBlock": "vit"}


def _per_stage(value: Any, stages: int) -> list[Any]:
    return [value] * stages if isinstance(value, str) or not isinstance(value, Sequence) else list(value)


def _look_up(table: Mapping[str, Any], key: str, what: str) -> Any:
    if key not in table:
        raise ConfigError(f"{what} {key!r} is unknown", fix=f"known: {', '.join(table)}")
    return table[key]


# -- diffusers ---------------------------------------------------------------------------------------------------------------


def from_diffusers(data: Mapping[str, Any]) -> AutoencoderConfig:
    """Configuration from the fields of ``AutoencoderDC`` (absent fields take that class's defaults)."""
    defaults = AutoencoderConfig()

    def coder(side: str, depths: list[int]) -> CoderConfig:
        widths = list(data.get(f"{side}_block_out_channels", defaults.encoder.widths))
        stages = len(widths)
        blocks = [_look_up(_BLOCKS_DIFFUSERS, name, "block type") for name in _per_stage(data.get(f"{side}_block_types", "ResBlock"), stages)]
        down = side == "encoder"
        kind = data.get("downsample_block_type" if down else "upsample_block_type", "pixel_unshuffle" if down else "pixel_shuffle")
        special = "pixel_unshuffle" if down else "interpolate"
        return CoderConfig(
            widths=widths,
            depths=list(data.get(f"{side}_layers_per_block", depths)),
            blocks=blocks,
            scales=[list(scales) for scales in data.get(f"{side}_qkv_multiscales", defaults.encoder.scales)],
            norms=["rms_norm"] * stages if down else _per_stage(data.get("decoder_norm_types", "rms_norm"), stages),
            activations=["silu"] * stages if down else _per_stage(data.get("decoder_act_fns", "silu"), stages),
            resample=special if kind == special else ("conv" if down else "pixel_shuffle"),
            latent_shortcut=bool(data.get("encoder_out_shortcut" if down else "decoder_in_shortcut", True)),
            output_activation=data.get("decoder_conv_act_fn", "relu"),
        )

    return AutoencoderConfig(
        in_channels=data.get("in_channels", 3),
        latent_channels=data.get("latent_channels", 32),
        head_dim=data.get("attention_head_dim", 32),
        scaling_factor=data.get("scaling_factor", 1.0) or 1.0,
        encoder=coder("encoder", [2, 2, 2, 3, 3, 3]),
        decoder=coder("decoder", [3, 3, 3, 3, 3, 3]),
    ).check()


def to_diffusers(config: AutoencoderConfig) -> dict[str, Any]:
    """The ``config.json`` that ``AutoencoderDC`` reads."""
    block = {ours: theirs for theirs, ours in _BLOCKS_DIFFUSERS.items()}
    if set(config.encoder.norms) != {"rms_norm"} or set(config.encoder.activations) != {"silu"}:
        raise ConfigError("the diffusers layout knows only RMS norm and SiLU in the encoder", fix="export the original layout or retrain with them")
    data: dict[str, Any] = {"_class_name": "AutoencoderDC", "in_channels": config.in_channels, "latent_channels": config.latent_channels}
    data |= {"attention_head_dim": config.head_dim, "scaling_factor": config.scaling_factor}
    for side, coder in (("encoder", config.encoder), ("decoder", config.decoder)):
        data[f"{side}_block_types"] = [block[name] for name in coder.blocks]
        data[f"{side}_block_out_channels"] = list(coder.widths)
        data[f"{side}_layers_per_block"] = list(coder.depths)
        data[f"{side}_qkv_multiscales"] = [list(scales) for scales in coder.scales]
    data |= {"decoder_norm_types": list(config.decoder.norms), "decoder_act_fns": list(config.decoder.activations)}
    data |= {"downsample_block_type": "pixel_unshuffle" if config.encoder.resample == "pixel_unshuffle" else "Conv"}
    data |= {"upsample_block_type": config.decoder.resample}
    data |= {"encoder_out_shortcut": config.encoder.latent_shortcut, "decoder_in_shortcut": config.decoder.latent_shortcut}
    return data | {"decoder_conv_act_fn": config.decoder.output_activation}


# -- original ----------------------------------------------------------------------------------------------------------------


def parse_dotlist(text: str) -> dict[str, Any]:
    """``"latent_channels=16 encoder.depth_list=[0,2]"`` as a tree.

    >>> parse_dotlist("latent_channels=16 decoder.norm=[bn2d,trms2d]")
    {'latent_channels': 16, 'decoder': {'norm': ['bn2d', 'trms2d']}}
    """
    from omegaconf import OmegaConf

    tree = OmegaConf.to_container(OmegaConf.from_dotlist(text.split()))
    if not isinstance(tree, dict):
        raise ConfigError(f"dot-list {text[:80]!r} is not a tree of keys", fix="give key=value pairs separated by spaces")
    return {str(key): value for key, value in tree.items()}


def from_original(data: Mapping[str, Any]) -> AutoencoderConfig:
    """Configuration from the reference class's tree (``encoder: {width_list, depth_list, block_type, ...}``)."""

    def coder(side: str) -> CoderConfig:
        tree = data.get(side) or {}
        for key in ("width_list", "depth_list", "block_type"):
            if key not in tree:
                raise ConfigError(f"original configuration lacks {side}.{key}", fix="use the config.json that was published with the weights")
        stages = len(tree["width_list"])
        pairs = [_look_up(_BLOCKS_ORIGINAL, name, "block type") for name in _per_stage(tree["block_type"], stages)]
        down = side == "encoder"
        if down:
            kind = tree.get("downsample_block_type", "ConvPixelUnshuffle")
            resample = "pixel_unshuffle" if kind == "ConvPixelUnshuffle" else "conv"
        else:
            kind = tree.get("upsample_block_type", "ConvPixelShuffle")
            resample = _look_up({"ConvPixelShuffle": "pixel_shuffle", "InterpolateConv": "interpolate"}, kind, "up-sampling block")
        norms = _per_stage(tree.get("norm", "trms2d"), stages)
        return CoderConfig(
            widths=list(tree["width_list"]),
            depths=list(tree["depth_list"]),
            blocks=[name for name, _ in pairs],
            scales=[list(scales) for _, scales in pairs],
            norms=[_look_up(_NORMS_ORIGINAL, name, "norm") for name in norms],
            activations=_per_stage(tree.get("act", "silu"), stages),
            resample=resample,
            latent_shortcut=(tree.get("out_shortcut", "averaging") if down else tree.get("in_shortcut", "duplicating")) is not None,
            output_activation=tree.get("out_act") or "relu",
        )

    return AutoencoderConfig(
        in_channels=data.get("in_channels", 3),
        latent_channels=data.get("latent_channels", 32),
        scaling_factor=data.get("scaling_factor") or 1.0,
        encoder=coder("encoder"),
        decoder=coder("decoder"),
    ).check()


def to_original(config: AutoencoderConfig) -> dict[str, Any]:
    """A tree that :func:`from_original` (and the reference class) understands."""
    if config.head_dim != 32:
        raise ConfigError(f"the original layout knows only attention heads of 32 channels, not {config.head_dim}", fix="export the diffusers layout")
    blocks = {(name, tuple(scales)): original for original, (name, scales) in _BLOCKS_ORIGINAL.items()}
    norms = {ours: theirs for theirs, ours in _NORMS_ORIGINAL.items()}

    def coder(side: CoderConfig) -> dict[str, Any]:
        kinds = [(name, tuple(scales) if name == "vit" else ()) for name, scales in zip(side.blocks, side.scales)]
        for kind in kinds:
            if kind not in blocks:
                raise ConfigError(f"the original layout has no block for extra scales {list(kind[1])}", fix="export the diffusers layout")
        tree: dict[str, Any] = {"block_type": [blocks[kind] for kind in kinds], "width_list": list(side.widths), "depth_list": list(side.depths)}
        return tree | {"norm": [norms[name] for name in side.norms], "act": list(side.activations)}

    encoder, decoder = coder(config.encoder), coder(config.decoder)
    encoder["downsample_block_type"] = "ConvPixelUnshuffle" if config.encoder.resample == "pixel_unshuffle" else "Conv"
    encoder["out_shortcut"] = "averaging" if config.encoder.latent_shortcut else None
    decoder["upsample_block_type"] = "ConvPixelShuffle" if config.decoder.resample == "pixel_shuffle" else "InterpolateConv"
    decoder["in_shortcut"] = "duplicating" if config.decoder.latent_shortcut else None
    decoder |= {"out_norm": "trms2d", "out_act": config.decoder.output_activation}
    data = {"model": "DCAE", "in_channels": config.in_channels, "latent_channels": config.latent_channels, "scaling_factor": config.scaling_factor}
    return data | {"encoder": encoder, "decoder": decoder}


# -- either ------------------------------------------------------------------------------------------------------------------


def from_published(data: Mapping[str, Any]) -> AutoencoderConfig | None:
    """Configuration from either form; None when ``data`` only names a published model (``{"model_name": ...}``)."""
    if data.get("_class_name") == "AutoencoderDC" or "encoder_block_out_channels" in data:
        return from_diffusers(data)
    if isinstance(data.get("encoder"), Mapping):
        return from_original(data)
    if isinstance(data.get("dotlist"), str):
        return from_original(parse_dotlist(data["dotlist"]))
    if "model_name" in data:
        return None
    raise ConfigError("config.json is neither an AutoencoderDC nor a DCAE configuration", tried=[f"keys: {', '.join(sorted(data)[:12])}"])


def read_config(path: Path) -> dict[str, Any]:
    """The configuration that lies beside weights in the folder ``path``; {} when there is none."""
    return read_json(path) if (path / "config.json").is_file() else {}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from ``path``, or from ``path/config.json`` when it is a folder."""
    file = path / "config.json" if path.is_dir() else path
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{file.name} is missing in {file.parent}", fix="put the published config.json beside the weights") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} is not valid JSON: {error}", fix="download config.json again") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} holds {type(data).__name__}, not an object", fix="download config.json again")
    return data
