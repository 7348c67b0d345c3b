"""Transformer and text encoder as one module, so that one optimiser trains both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo_sana.config import TransformerConfig, to_diffusers
from zoo_sana.layouts import plain_diffusers_keymap
from zoo_sana.training.config import EmojiTrainConfig
from zoo_sana.training.text import make_encoder, save_text_side
from zoo_sana.transformer import Caption, SanaTransformer


def make_network(config: EmojiTrainConfig, vocabulary: int, latent_shape: Sequence[int]) -> FlowNetwork:
    """A fresh network for latents [C, h, w]: Xavier weights and zero biases as in the paper, a silent output and silent cross-attentions at the start."""
    transformer = SanaTransformer(
        TransformerConfig(
            in_channels=latent_shape[0],
            out_channels=latent_shape[0],
            heads=config.heads,
            head_dim=config.width // config.heads,
            cross_heads=config.cross_heads,
            layers=config.layers,
            caption_channels=config.text.width,
            sample_size=latent_shape[-1],
        )
    )
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for block in transformer.blocks:
        nn.init.zeros_(block.cross.out.weight)  # type: ignore[union-attr, arg-type]
    nn.init.zeros_(transformer.out.weight)
    nn.init.ones_(transformer.caption_norm.weight)  # the paper's 0.01 tames a frozen language model; this encoder starts from nothing
    return FlowNetwork(transformer, make_encoder(vocabulary, config.text.width, config.text.layers, config.text.heads))


class FlowNetwork(nn.Module):
    """``forward(latents, times, ids, mask) -> velocity``; one text serves ``len(latents) / len(ids)`` consecutive latents."""

    def __init__(self, transformer: SanaTransformer, text_encoder: Any) -> None:
        super().__init__()
        self.transformer, self.text_encoder = transformer, text_encoder

    def caption(self, ids: Tensor, mask: Tensor, repeats: int = 1) -> Caption:
        """Token ids and mask [B, L] to what every block needs, for ``repeats`` consecutive latents per caption."""
        text = self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        once = self.transformer.caption(text, mask)
        if repeats == 1:
            return once
        memory = [(k.repeat_interleave(repeats, 0), v.repeat_interleave(repeats, 0)) for k, v in once.memory]
        return replace(once, memory=memory, bias=None if once.bias is None else once.bias.repeat_interleave(repeats, 0))

    def forward(self, latents: Tensor, times: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Flow velocity of latents [B * k, C, h, w] at ``times`` (0..1000) for captions [B, L]."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        if latents.device.type == "cpu":  # the fused kernel is slower for a dozen keys
            with sdpa_kernel(SDPBackend.MATH):
                return self.transformer(latents, self.caption(ids, mask, len(latents) // len(ids)), times)
        return self.transformer(latents, self.caption(ids, mask, len(latents) // len(ids)), times)

    def not_matrices(self) -> list[nn.Parameter]:
        """Weights that an orthogonalising optimiser should leave to AdamW: embeddings, tables, depthwise kernels, first and last layers."""
        names = ("embed_tokens", "table", "depthwise", "patch_embed", "transformer.out.", "time_mlp")
        return [p for key, p in self.named_parameters() if p.ndim >= 2 and any(name in key for name in names)]

    def export(self, folder: Path, tokenizer: Any, config: EmojiTrainConfig, dtype: torch.dtype = torch.bfloat16) -> Path:
        """Pipeline folder in the published layout: ``transformer/``, ``text_encoder/``, ``tokenizer/``, ``scheduler/``, ``model_index.json``, ``zoo.json``."""
        from zoo_core.checkpoint import save_checkpoint

        for part in ("transformer", "scheduler"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        weights = {key: value.detach().to(dtype).contiguous() for key, value in self.transformer.state_dict().items()}
        save_checkpoint(weights, folder / "transformer" / "diffusion_pytorch_model.safetensors", keymap=plain_diffusers_keymap())
        _write(folder / "transformer" / "config.json", to_diffusers(self.transformer.config))
        self.text_encoder.to(dtype)
        save_text_side(tokenizer, self.text_encoder, folder)
        self.text_encoder.float()
        scheduler = {"_class_name": "DPMSolverMultistepScheduler", "num_train_timesteps": 1000, "prediction_type": "flow_prediction", "use_flow_sigmas": True}
        scheduler |= {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint", "flow_shift": config.shift, "final_sigmas_type": "zero"}
        _write(folder / "scheduler" / "scheduler_config.json", scheduler)
        index = {
            "_class_name": "SanaPipeline",
            "transformer": ["diffusers", "SanaTransformer2DModel"],
            "text_encoder": ["transformers", "Gemma2Model"],
            "tokenizer": ["transformers", "GemmaTokenizerFast"],
            "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        }
        _write(folder / "zoo.json", {"autoencoder": config.autoencoder, "text_tokens": config.text.length, "instruction": False})
        _write(folder / "model_index.json", index)
        return folder


def _write(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
