"""The two published key layouts of the transformer as invertible maps onto the module's keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zoo_core.checkpoint import Drop, Fuse, KeyMap, Rename, Reshape
from zoo_core.errors import CheckpointError

DIFFUSERS, ORIGINAL = "sana-diffusers", "sana-original"


def diffusers_keymap(config: Any = None) -> KeyMap:
    """Keys of a published ``transformer`` folder -> module keys."""
    return KeyMap(
        [
            Rename("patch_embed.proj.{x}", "patch_embed.{x}"),
            Rename("time_embed.emb.timestep_embedder.{x*}", "time_mlp.{x*}"),
            Rename("time_embed.timestep_embedder.{x*}", "time_mlp.{x*}"),
            Rename("time_embed.guidance_embedder.{x*}", "guidance_mlp.{x*}"),
            Rename("time_embed.linear.{x}", "modulation.{x}"),
            Rename("caption_projection.{x*}", "caption_mlp.{x*}"),
            Rename("scale_shift_table", "out_table"),
            Rename("proj_out.{x}", "out.{x}"),
            Rename("transformer_blocks.{i}.scale_shift_table", "blocks.{i}.table"),
            Fuse(
                ["transformer_blocks.{i}.attn1.to_q.{x}", "transformer_blocks.{i}.attn1.to_k.{x}", "transformer_blocks.{i}.attn1.to_v.{x}"],
                "blocks.{i}.attn.qkv.{x}",
                dim=0,
            ),
            Rename("transformer_blocks.{i}.attn1.norm_q.{x}", "blocks.{i}.attn.q_norm.{x}"),
            Rename("transformer_blocks.{i}.attn1.norm_k.{x}", "blocks.{i}.attn.k_norm.{x}"),
            Rename("transformer_blocks.{i}.attn1.to_out.0.{x}", "blocks.{i}.attn.out.{x}"),
            Rename("transformer_blocks.{i}.attn2.to_q.{x}", "blocks.{i}.cross.q.{x}"),
            Fuse(["transformer_blocks.{i}.attn2.to_k.{x}", "transformer_blocks.{i}.attn2.to_v.{x}"], "blocks.{i}.cross.kv.{x}", dim=0),
            Rename("transformer_blocks.{i}.attn2.norm_q.{x}", "blocks.{i}.cross.q_norm.{x}"),
            Rename("transformer_blocks.{i}.attn2.norm_k.{x}", "blocks.{i}.cross.k_norm.{x}"),
            Rename("transformer_blocks.{i}.attn2.to_out.0.{x}", "blocks.{i}.cross.out.{x}"),
            Rename("transformer_blocks.{i}.ff.conv_inverted.{x}", "blocks.{i}.ffn.inverted.{x}"),
            Rename("transformer_blocks.{i}.ff.conv_depth.{x}", "blocks.{i}.ffn.depthwise.{x}"),
            Rename("transformer_blocks.{i}.ff.conv_point.{x}", "blocks.{i}.ffn.point.{x}"),
            *_pointwise(),
        ]
    )


def _pointwise() -> list[Reshape]:
    return [Reshape("blocks.{i}.ffn.inverted.weight", "o i 1 1 -> o i"), Reshape("blocks.{i}.ffn.point.weight", "o i 1 1 -> o i")]


def sprint_diffusers_keymap(config: Any = None) -> KeyMap:
    """The diffusers layout of guidance-embedding models (their time embedder lies one level higher); needed for export only."""
    steps = diffusers_keymap(config).steps
    return KeyMap([step for step in steps if "time_embed.emb." not in repr(step)])


def plain_diffusers_keymap(config: Any = None) -> KeyMap:
    """The diffusers layout of models without guidance embedding; needed for export only."""
    steps = diffusers_keymap(config).steps
    return KeyMap([step for step in steps if "'time_embed.timestep_embedder" not in repr(step) and "guidance_embedder" not in repr(step)])


def original_keymap(config: Any = None) -> KeyMap:
    """Keys of the reference code's checkpoints -> module keys."""
    return KeyMap(
        [
            Drop("y_embedder.y_embedding", "null caption of the training's caption dropout"),
            Drop("pos_embed", "computed for every size"),
            Drop("logvar_linear.{x*}", "loss weighting of the distillation"),
            Rename("x_embedder.proj.{x}", "patch_embed.{x}"),
            Rename("t_embedder.mlp.0.{x}", "time_mlp.linear_1.{x}"),
            Rename("t_embedder.mlp.2.{x}", "time_mlp.linear_2.{x}"),
            Rename("cfg_embedder.mlp.0.{x}", "guidance_mlp.linear_1.{x}"),
            Rename("cfg_embedder.mlp.2.{x}", "guidance_mlp.linear_2.{x}"),
            Rename("t_block.1.{x}", "modulation.{x}"),
            Rename("y_embedder.y_proj.fc1.{x}", "caption_mlp.linear_1.{x}"),
            Rename("y_embedder.y_proj.fc2.{x}", "caption_mlp.linear_2.{x}"),
            Rename("attention_y_norm.{x}", "caption_norm.{x}"),
            Rename("blocks.{i}.scale_shift_table", "blocks.{i}.table"),
            Rename("blocks.{i}.attn.proj.{x}", "blocks.{i}.attn.out.{x}"),
            Rename("blocks.{i}.cross_attn.q_linear.{x}", "blocks.{i}.cross.q.{x}"),
            Rename("blocks.{i}.cross_attn.kv_linear.{x}", "blocks.{i}.cross.kv.{x}"),
            Rename("blocks.{i}.cross_attn.q_norm.{x}", "blocks.{i}.cross.q_norm.{x}"),
            Rename("blocks.{i}.cross_attn.k_norm.{x}", "blocks.{i}.cross.k_norm.{x}"),
            Rename("blocks.{i}.cross_attn.proj.{x}", "blocks.{i}.cross.out.{x}"),
            Rename("blocks.{i}.mlp.inverted_conv.conv.{x}", "blocks.{i}.ffn.inverted.{x}"),
            Rename("blocks.{i}.mlp.depth_conv.conv.{x}", "blocks.{i}.ffn.depthwise.{x}"),
            Rename("blocks.{i}.mlp.point_conv.conv.{x}", "blocks.{i}.ffn.point.{x}"),
            Rename("final_layer.linear.{x}", "out.{x}"),
            Rename("final_layer.scale_shift_table", "out_table"),
            *_pointwise(),
        ]
    )


KEYMAPS = {DIFFUSERS: diffusers_keymap, ORIGINAL: original_keymap}
DETECT = {DIFFUSERS: (r"^transformer_blocks\.0\.attn1\.to_q\.weight$",), ORIGINAL: (r"^blocks\.0\.attn\.qkv\.weight$", r"^x_embedder\.proj\.weight$")}


def transformer_layout(keys: Iterable[str]) -> str:
    """Which layout the keys have.  Raises CheckpointError when neither."""
    found = set(keys)
    if "transformer_blocks.0.attn1.to_q.weight" in found:
        return DIFFUSERS
    if "x_embedder.proj.weight" in found:
        return ORIGINAL
    shown = ", ".join(sorted(found)[:4])
    raise CheckpointError(f"these {len(found)} tensors are no Sana transformer", tried=[f"first keys: {shown}"], fix="zoo load-check PATH says what a file is")


def export_keymap(config: Any, layout: str) -> KeyMap:
    """Module keys' source map for writing ``layout`` (its inverse is applied)."""
    if layout == ORIGINAL:
        return original_keymap(config)
    return sprint_diffusers_keymap(config) if config.guidance_embed else plain_diffusers_keymap(config)
