"""Transformer and text encoder as one module, so that one optimiser trains both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo_sana.training.config import EmojiTrainConfig
from zoo_sana.training.text import make_encoder, save_text_side


def make_network(config: EmojiTrainConfig, vocabulary: int, latent_shape: Sequence[int]) -> FlowNetwork:
    """A fresh network for latents [C, h, w]."""
    from diffusers import SanaTransformer2DModel

    transformer = SanaTransformer2DModel(
        in_channels=latent_shape[0],
        out_channels=latent_shape[0],
        num_attention_heads=config.heads,
        attention_head_dim=config.width // config.heads,
        num_layers=config.layers,
        num_cross_attention_heads=config.cross_heads,
        cross_attention_head_dim=config.width // config.cross_heads,
        cross_attention_dim=config.width,
        caption_channels=config.text.width,
        sample_size=latent_shape[-1],
        patch_size=1,
        mlp_ratio=2.5,
    )
    encoder = make_encoder(vocabulary, config.text.width, config.text.layers, config.text.heads)
    nn.init.ones_(transformer.caption_norm.weight)  # the paper's 0.01 tames a frozen language model; this encoder starts from nothing
    return FlowNetwork(transformer, encoder)


class FlowNetwork(nn.Module):
    """``forward(latents, timesteps, ids, mask) -> velocity``; one text serves ``len(latents) / len(ids)`` consecutive latents."""

    def __init__(self, transformer: Any, text_encoder: Any) -> None:
        super().__init__()
        self.transformer, self.text_encoder = transformer, text_encoder

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Last hidden states [B, L, width]."""
        return self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state

    def velocity(self, latents: Tensor, timesteps: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Flow velocity for text states that are already computed."""
        return self.transformer(latents, encoder_hidden_states=text, timestep=timesteps, encoder_attention_mask=mask, return_dict=False)[0]

    def forward(self, latents: Tensor, timesteps: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        times = len(latents) // len(ids)
        text = self.encode_text(ids, mask).repeat_interleave(times, 0)
        return self.velocity(latents, timesteps, text, mask.repeat_interleave(times, 0))

    def not_matrices(self) -> list[nn.Parameter]:
        """Weights that an orthogonalising optimiser should leave to AdamW: embeddings, tables, depthwise kernels, first and last layers."""
        names = ("embed_tokens", "scale_shift_table", "conv_depth", "patch_embed", "proj_out", "timestep_embedder")
        return [p for key, p in self.named_parameters() if p.ndim >= 2 and any(name in key for name in names)]

    def export(self, folder: Path, tokenizer: Any, config: EmojiTrainConfig, scaling_factor: float, dtype: torch.dtype = torch.bfloat16) -> Path:
        """Pipeline folder: ``transformer/``, ``text_encoder/``, ``tokenizer/``, ``scheduler/``, ``model_index.json``."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        transformer = folder / "transformer"
        transformer.mkdir(exist_ok=True)
        weights = {key: value.detach().to(dtype).contiguous() for key, value in self.transformer.state_dict().items()}
        save_file(weights, transformer / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
        settings = {key: value for key, value in self.transformer.config.items() if not key.startswith("_") or key == "_class_name"}
        settings["_class_name"] = "SanaTransformer2DModel"
        _write(transformer / "config.json", settings)
        encoder = self.text_encoder.to(dtype)
        save_text_side(tokenizer, encoder, folder)
        encoder.float()
        scheduler = {"_class_name": "DPMSolverMultistepScheduler", "num_train_timesteps": 1000, "prediction_type": "flow_prediction", "use_flow_sigmas": True}
        scheduler |= {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint", "flow_shift": config.shift, "final_sigmas_type": "zero"}
        (folder / "scheduler").mkdir(exist_ok=True)
        _write(folder / "scheduler" / "scheduler_config.json", scheduler)
        index = {
            "_class_name": "SanaPipeline",
            "transformer": ["diffusers", "SanaTransformer2DModel"],
            "text_encoder": ["transformers", "Gemma2Model"],
            "tokenizer": ["transformers", "GemmaTokenizerFast"],
            "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
            "autoencoder": config.autoencoder,
            "scaling_factor": scaling_factor,
        }
        _write(folder / "model_index.json", index)
        return folder


def _write(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
