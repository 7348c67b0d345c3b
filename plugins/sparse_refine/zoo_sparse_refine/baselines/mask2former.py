"""Mask2Former with a Swin backbone from transformers, for checkpoints in the layout of mmsegmentation and mmdet (fact sheet section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_core.checkpoint import Drop, Rename, Reshape, Split
from zoo_core.errors import ConfigError, MissingDependencyError
from zoo_sparse_refine.baselines import Baseline
from zoo_sparse_refine.config import BaselineConfig

PIXEL, QUERY = "model.pixel_level_module", "model.transformer_module"


def to_transformers(model: Mapping[str, Any]) -> Any:
    """The model dictionary of mmsegmentation as ``Mask2FormerConfig``.

    Raises:
        ConfigError: Another backbone than Swin, or a part that transformers does not have.
    """
    try:
        from transformers import Mask2FormerConfig, SwinConfig
    except ImportError as error:
        raise MissingDependencyError("Mask2Former needs transformers", tried=[str(error)], fix="pip install transformers") from error
    backbone, head = model["backbone"], model["decode_head"]
    if backbone.get("type") != "SwinTransformer":
        raise ConfigError(f"Mask2Former with the backbone {backbone.get('type')!r} is not supported", fix="use a Swin backbone")
    swin = SwinConfig(
        image_size=int(backbone.get("pretrain_img_size", 224)),
        embed_dim=int(backbone["embed_dims"]),
        depths=list(backbone["depths"]),
        num_heads=list(backbone["num_heads"]),
        window_size=int(backbone["window_size"]),
        mlp_ratio=float(backbone.get("mlp_ratio", 4)),
        qkv_bias=bool(backbone.get("qkv_bias", True)),
        drop_path_rate=float(backbone.get("drop_path_rate", 0.0)),
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    layers, encoder = head["transformer_decoder"], head["pixel_decoder"]["encoder"]
    return Mask2FormerConfig(
        backbone_config=swin,
        feature_size=int(head["feat_channels"]),
        mask_feature_size=int(head["out_channels"]),
        hidden_dim=int(layers["layer_cfg"]["self_attn_cfg"]["embed_dims"]),
        num_attention_heads=int(layers["layer_cfg"]["self_attn_cfg"]["num_heads"]),
        dim_feedforward=int(layers["layer_cfg"]["ffn_cfg"]["feedforward_channels"]),
        decoder_layers=int(layers["num_layers"]) + 1,
        encoder_layers=int(encoder["num_layers"]),
        encoder_feedforward_dim=int(encoder["layer_cfg"]["ffn_cfg"]["feedforward_channels"]),
        num_queries=int(head["num_queries"]),
        num_labels=int(head["num_classes"]),
        feature_strides=list(head.get("strides", (4, 8, 16, 32))),
        common_stride=4,
        dropout=0.0,
    )


class Mask2FormerBaseline(Baseline):
    """Scores: sum over queries of class probability (without "no object") times mask probability; not normalised over classes."""

    def __init__(self, config: BaselineConfig, model: Mapping[str, Any]) -> None:
        super().__init__(config)
        from transformers import Mask2FormerForUniversalSegmentation

        self.settings = to_transformers(model)
        network: Any = Mask2FormerForUniversalSegmentation(self.settings)
        network.criterion = nn.Identity()  # losses only
        network.model.pixel_level_module.encoder.swin.layernorm = nn.Identity()  # every stage has a norm of its own
        groups = int((model["decode_head"]["pixel_decoder"].get("norm_cfg") or {}).get("num_groups", 32))
        for module in network.model.pixel_level_module.decoder.modules():
            if isinstance(module, nn.GroupNorm):
                module.num_groups = groups
        self.network = network

    def fixed_buffers(self, name: str, like: Tensor) -> Tensor:
        """The buffers that no checkpoint holds: indices of the relative positions in a window (``like`` has M^4 entries for a window of M x M)."""
        side = round(like.numel() ** 0.25)
        if not name.endswith("relative_position_index") or side**4 != like.numel():
            raise ConfigError(f"the buffer {name} of Mask2Former is not known", fix="use a version of transformers that this plugin was tested with (5.23)")
        place = torch.arange(side * side, device="cpu")
        row, column = place // side, place % side
        index = (row[:, None] - row + side - 1) * (2 * side - 1) + (column[:, None] - column + side - 1)
        return index.view(like.shape)

    def run(self, image: Tensor) -> Any:
        """Everything: the output of transformers with hidden states and the predictions of every layer."""
        return self.network(pixel_values=image, output_hidden_states=True, output_auxiliary_logits=True)

    def raw(self, image: Tensor) -> Tensor:
        """Scores at the size of the input."""
        out = self.network(pixel_values=image, output_auxiliary_logits=False)
        classes = out.class_queries_logits.softmax(-1)[..., :-1]
        masks = F.interpolate(out.masks_queries_logits, size=image.shape[2:], mode="bilinear", align_corners=False).sigmoid()
        return torch.einsum("bqc,bqhw->bchw", classes, masks)

    def keymap_steps(self) -> list[Any]:
        """Keys of mmsegmentation -> keys of transformers."""
        swin, pixel, decoder = f"{PIXEL}.encoder.swin", f"{PIXEL}.decoder", f"{QUERY}.decoder"
        block, mm = f"{swin}.encoder.layers.{{s}}.blocks.{{b}}", "backbone.stages.{s}.blocks.{b}"
        layer, source = f"{pixel}.encoder.layers.{{i}}", "decode_head.pixel_decoder.encoder.layers.{i}"
        query, from_query = f"{decoder}.layers.{{i}}", "decode_head.transformer_decoder.layers.{i}"
        norms = [Rename(f"backbone.norm{i}.{{x}}", f"{PIXEL}.encoder.hidden_states_norms.stage{i + 1}.{{x}}") for i in range(4)]
        masks = [Rename(f"decode_head.mask_embed.{2 * i}.{{x}}", f"{decoder}.mask_predictor.mask_embedder.{i}.0.{{x}}") for i in range(3)]
        return [
            Drop("backbone.stages.{s}.blocks.{b}.attn.w_msa.relative_position_index", "follows from the window size"),
            Drop("decode_head.loss_{x*}", "class weights of the loss"),
            Rename("backbone.patch_embed.projection.{x}", f"{swin}.embeddings.patch_embeddings.projection.{{x}}"),
            Rename("backbone.patch_embed.norm.{x}", f"{swin}.embeddings.norm.{{x}}"),
            Split(f"{mm}.attn.w_msa.qkv.{{x}}", [f"{block}.attention.{part}_proj.{{x}}" for part in "qkv"], dim=0),
            Rename(f"{mm}.attn.w_msa.proj.{{x}}", f"{block}.attention.o_proj.{{x}}"),
            Rename(f"{mm}.attn.w_msa.relative_position_bias_table", f"{block}.attention.relative_position_bias.relative_position_bias_table"),
            Rename(f"{mm}.norm1.{{x}}", f"{block}.layernorm_before.{{x}}"),
            Rename(f"{mm}.norm2.{{x}}", f"{block}.layernorm_after.{{x}}"),
            Rename(f"{mm}.ffn.layers.0.0.{{x}}", f"{block}.mlp.fc1.{{x}}"),
            Rename(f"{mm}.ffn.layers.1.{{x}}", f"{block}.mlp.fc2.{{x}}"),
            Rename("backbone.stages.{s}.downsample.{x*}", f"{swin}.encoder.layers.{{s}}.downsample.{{x*}}"),
            # the four pixels that are merged: channel-major here and row before column, there pixel-major and column before row
            Reshape(f"{swin}.encoder.layers.{{s}}.downsample.reduction.weight", "o (c h w) -> o (w h c)", h=2, w=2),
            Reshape(f"{swin}.encoder.layers.{{s}}.downsample.norm.{{x}}", "(c h w) -> (w h c)", h=2, w=2),
            *norms,
            Rename("decode_head.pixel_decoder.input_convs.{i}.conv.{x}", f"{pixel}.input_projections.{{i}}.0.{{x}}"),
            Rename("decode_head.pixel_decoder.input_convs.{i}.gn.{x}", f"{pixel}.input_projections.{{i}}.1.{{x}}"),
            Rename("decode_head.pixel_decoder.lateral_convs.0.conv.{x}", f"{pixel}.adapter_1.0.{{x}}"),
            Rename("decode_head.pixel_decoder.lateral_convs.0.gn.{x}", f"{pixel}.adapter_1.1.{{x}}"),
            Rename("decode_head.pixel_decoder.output_convs.0.conv.{x}", f"{pixel}.layer_1.0.{{x}}"),
            Rename("decode_head.pixel_decoder.output_convs.0.gn.{x}", f"{pixel}.layer_1.1.{{x}}"),
            Rename("decode_head.pixel_decoder.mask_feature.{x}", f"{pixel}.mask_projection.{{x}}"),
            Rename("decode_head.pixel_decoder.level_encoding.weight", f"{pixel}.level_embed"),
            Rename(f"{source}.self_attn.{{x*}}", f"{layer}.self_attn.{{x*}}"),
            Rename(f"{source}.norms.0.{{x}}", f"{layer}.self_attn_layer_norm.{{x}}"),
            Rename(f"{source}.norms.1.{{x}}", f"{layer}.final_layer_norm.{{x}}"),
            Rename(f"{source}.ffn.layers.0.0.{{x}}", f"{layer}.fc1.{{x}}"),
            Rename(f"{source}.ffn.layers.1.{{x}}", f"{layer}.fc2.{{x}}"),
            Rename("decode_head.query_embed.weight", f"{QUERY}.queries_embedder.weight"),
            Rename("decode_head.query_feat.weight", f"{QUERY}.queries_features.weight"),
            Rename("decode_head.level_embed.weight", f"{QUERY}.level_embed.weight"),
            *(
                Split(f"{from_query}.self_attn.attn.in_proj_{kind}", [f"{query}.self_attn.{part}_proj.{kind}" for part in "qkv"], dim=0)
                for kind in ("weight", "bias")
            ),
            Rename(f"{from_query}.self_attn.attn.out_proj.{{x}}", f"{query}.self_attn.out_proj.{{x}}"),
            Rename(f"{from_query}.cross_attn.attn.{{x*}}", f"{query}.cross_attn.{{x*}}"),
            Rename(f"{from_query}.norms.0.{{x}}", f"{query}.cross_attn_layer_norm.{{x}}"),
            Rename(f"{from_query}.norms.1.{{x}}", f"{query}.self_attn_layer_norm.{{x}}"),
            Rename(f"{from_query}.norms.2.{{x}}", f"{query}.final_layer_norm.{{x}}"),
            Rename(f"{from_query}.ffn.layers.0.0.{{x}}", f"{query}.fc1.{{x}}"),
            Rename(f"{from_query}.ffn.layers.1.{{x}}", f"{query}.fc2.{{x}}"),
            Rename("decode_head.transformer_decoder.post_norm.{x}", f"{decoder}.layernorm.{{x}}"),
            Rename("decode_head.cls_embed.{x}", "class_predictor.{x}"),
            *masks,
        ]
