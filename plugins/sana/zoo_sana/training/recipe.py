"""Training Sana from scratch on emoji: the whole architecture at small scale (``zoo train sana/emoji``).

Kept from the paper: rectified flow with velocity prediction, logit-normal times on a shifted schedule, caption dropout to the empty caption, a Gemma-2 text
encoder whose output is RMS-normalised, EMA.  Different, because everything is small and starts from nothing: the text encoder is trained along, captions are
short and carry no instruction, the optimiser is Muon by default, and several noise draws share one pass of the text encoder.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo_core.training import CAME, Batches, Trainer, load_weights
from zoo_core.training.state import TrainState
from zoo_sana.flow import TRAIN_STEPS, add_noise, flow_loss, logit_normal_times
from zoo_sana.training import data as emoji
from zoo_sana.training import evaluate as measures
from zoo_sana.training.config import EmojiTrainConfig
from zoo_sana.training.network import FlowNetwork, make_network
from zoo_sana.training.text import train_tokenizer


def run(config: EmojiTrainConfig) -> dict[str, Any]:
    """Train; returns the trainer's summary with ``export``, a folder in the published pipeline layout."""
    config.validate()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    latents = prepare(config)
    pool = emoji.caption_pool(latents.rows, config)
    tokenizer = _known_tokenizer(config.init) or train_tokenizer((text for texts in pool for text in texts), config.text.vocabulary)
    tokens = emoji.tokenise(pool, tokenizer, config.text.length)
    empty = tokenizer("", padding="max_length", max_length=config.text.length, return_tensors="pt").input_ids[0]
    torch.manual_seed(config.seed)
    network = make_network(config, len(tokenizer), latents.latents.shape[1:])
    if config.init:
        network.load_state_dict(load_weights(config.init, "network"))
    counts = emoji.draw_counts(latents.rows, config)
    index = torch.tensor([i for i, count in enumerate(counts) for _ in range(count)])
    batches = Batches(
        {"row": index},
        config.batch_size,
        seed=config.seed,
        transform=emoji.CaptionedLatents(latents.latents, tokens, empty, config.dropout),
        rank=rank,
        world_size=world,
    )
    trainer = Trainer(
        config,
        {"network": network},
        {"network": _optimiser(config, network)},
        Step(config, network),
        batches,
        lambda state: {} if state.rank else measures.while_training(config, network, tokenizer, latents, state),
        schedule=lambda step, name: stable_then_decay(step, config),
        title="sana emoji",
    )
    result = trainer.run()
    if rank == 0:
        network.load_state_dict(load_weights(result["checkpoint"], "network"))
        result["export"] = str(network.export(Path(config.output) / "export", tokenizer, config))
    return result


def _known_tokenizer(init: str) -> Any:
    """The tokenizer of the run to start from: its text encoder knows these token numbers and no others.  None where that run left no export."""
    from transformers import AutoTokenizer

    folder = Path(init) / "export" / "tokenizer"
    return AutoTokenizer.from_pretrained(folder, local_files_only=True) if init and folder.is_dir() else None


def prepare(config: EmojiTrainConfig, log: Callable[[str], None] = print) -> emoji.EmojiLatents:
    """Latents of the set, made once per run folder with the autoencoder's encoder."""
    path = Path(config.output) / "latents.safetensors"
    if path.exists():
        return emoji.load(path)
    from zoo_core.loading import load

    autoencoder = load(config.autoencoder, device="cpu")
    pictures, rows = emoji.collect(config, log)
    data = emoji.encode(pictures, rows, autoencoder.encode, autoencoder.scaling_factor)
    if int(os.environ.get("RANK", 0)) == 0:
        emoji.save(data, path)
    return data


def stable_then_decay(step: int, config: EmojiTrainConfig) -> float:
    """Warm-up, constant, then linear to ``final_lr`` over the last ``decay`` of the steps."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    return warm * max(min(1.0, (config.steps - step) / max(config.decay * config.steps, 1)), config.final_lr)


class Step:
    """Flow-matching loss of one batch: x_s = (1 - s) x + s eps, target eps - x."""

    def __init__(self, config: EmojiTrainConfig, network: nn.Module) -> None:
        self.config, self.network = config, network

    def __call__(self, batch: dict[str, Tensor], state: TrainState) -> dict[str, Tensor]:
        clean = batch["latents"].repeat_interleave(self.config.draws, 0)
        times = logit_normal_times(len(clean), self.config.shift, generator=state.generator, device=state.device)
        noise = torch.randn(clean.shape, generator=state.generator, device=state.device)
        velocity = self.network(add_noise(clean, noise, times), times * TRAIN_STEPS, batch["ids"], batch["mask"])
        return {"loss": flow_loss(velocity, clean, noise)}


def _optimiser(config: EmojiTrainConfig, network: FlowNetwork) -> torch.optim.Optimizer:
    if config.optimiser == "adamw":
        return torch.optim.AdamW(network.parameters(), config.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    if config.optimiser == "came":
        return CAME(network.parameters(), lr=config.lr)
    from zoo_core.training.muon import Muon

    shared = int(os.environ.get("WORLD_SIZE", 1)) > 1 and config.parallel == "replicate"
    return Muon(network.parameters(), adamw=network.not_matrices(), lr=config.lr, shared=shared)
