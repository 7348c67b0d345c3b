"""Held-out measures without any downloaded network: retrieval, Frechet distance in the autoencoder's latent space, sheets.

Retrieval: the emoji whose latent (any style, true colours) is nearest to the generated one must carry the asked name.  It is the honest question for
this model: did it draw the thing?
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo_core.training.state import TrainState
from zoo_sana.training.captions import STYLE_WORDS, clean
from zoo_sana.training.config import EmojiTrainConfig
from zoo_sana.training.data import EmojiLatents, Row


@torch.no_grad()
def generate_latents(
    network: Any, tokenizer: Any, prompts: Sequence[str], shape: Sequence[int], *, shift: float, guidance: float, steps: int, seed: int
) -> Tensor:
    """Latents [N, C, h, w] (scaled) by plain Euler steps with classifier-free guidance; the plugin's own samplers do better, this one needs no pipeline."""
    network.eval()
    count = len(prompts)
    tokens = tokenizer([*prompts, *[""] * count], padding=True, return_tensors="pt")
    caption = network.caption(tokens.input_ids, tokens.attention_mask)
    x = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))
    grid = torch.linspace(1, 0, steps + 1)
    grid = shift * grid / (1 + (shift - 1) * grid)
    for now, after in zip(grid[:-1].tolist(), grid[1:].tolist()):
        both = network.transformer(torch.cat([x, x]), caption, torch.tensor([now * 1000])).float()
        conditional, free = both.chunk(2)
        x = x + (after - now) * (free + guidance * (conditional - free))
    return x


def plain_prompt(row: Row, default_style: str) -> str:
    """The canonical prompt of a row."""
    text = clean(row.name) if row.colour is None else f"{row.colour} {clean(row.name)}"
    return text if row.style == default_style else f"{text} {STYLE_WORDS[row.style][0]}"


def retrieval(generated: Tensor, asked: Sequence[Row], data: EmojiLatents, *, by_name: bool = True) -> dict[str, float]:
    """Share of generated latents whose nearest (and five nearest) neighbour among all uncoloured pictures shows the asked emoji."""
    places = [i for i, row in enumerate(data.rows) if row.colour is None]
    bank = data.latents[places].flatten(1)
    codes = [data.rows[i].code for i in places]
    nearest = torch.cdist(generated.flatten(1), bank).topk(5, largest=False).indices.tolist()
    first = sum(codes[row[0]] == want.code for row, want in zip(nearest, asked))
    five = sum(want.code in {codes[i] for i in row} for row, want in zip(nearest, asked))
    return {"top1": first / len(asked), "top5": five / len(asked)}


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Frechet distance of two sets of features [N, D] in float64."""
    a, b = first.double(), second.double()
    covariances = (torch.cov(a.T), torch.cov(b.T))
    trace = torch.linalg.eigvals(covariances[0] @ covariances[1]).sqrt().real.sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + covariances[0].trace() + covariances[1].trace() - 2 * trace)


SHEET = (
    "a slice of pizza", "an apple", "a cat", "a dog", "red heart", "a star", "a car", "smiling face",
    "a rocket", "a rose", "a house", "a fish", "the sun", "a cup of coffee", "a tree", "a banana",
    "a blue apple", "a green cat", "a purple car", "a pink fish", "a red banana", "a blue strawberry", "an orange frog", "a purple pizza",
    "a cat in google style", "a cat in microsoft style", "an apple in google style", "a rocket in google style",
    "a rocket in microsoft style", "pizza in google style", "pizza in microsoft style", "a house in google style",
)  # fmt: skip


def while_training(config: EmojiTrainConfig, network: Any, tokenizer: Any, data: EmojiLatents, state: TrainState) -> dict[str, float]:
    """Retrieval on 96 training rows and on the held-out (emoji, style) pairs; a sheet when the autoencoder can be loaded."""
    shape = data.latents.shape[1:]
    options = {"shift": config.shift, "guidance": config.guidance, "steps": config.sample_steps, "seed": config.seed}
    result = {}
    for name, places in (("seen", data.where(held_out=False, coloured=False)), ("held_out", data.where(held_out=True, coloured=False))):
        chosen = [places[i] for i in torch.randperm(len(places), generator=torch.Generator().manual_seed(0))[:96].tolist()]
        rows = [data.rows[i] for i in chosen]
        made = generate_latents(network, tokenizer, [plain_prompt(row, config.default_style) for row in rows], shape, **options)
        result |= {f"{name}_{key}": value for key, value in retrieval(made, rows, data).items()}
    made = generate_latents(network, tokenizer, SHEET, shape, **options)
    path = state.folder / "pictures" / f"step-{state.step:06d}.png"
    decode = _decoder(config)
    if decode is not None:
        save_sheet(decode(made / data.scaling_factor), path)
    return result


def _decoder(config: EmojiTrainConfig) -> Callable[[Tensor], Tensor] | None:
    from zoo_core.loading import load

    return load(config.autoencoder, device="cpu").decode


def save_sheet(images: Tensor, path: str | Path, columns: int = 8) -> Path:
    """Pictures [N, 3, H, W] in [-1, 1] as one PNG."""
    from PIL import Image

    pixels = (255 * (images.float() + 1) / 2 + 0.5).clamp(0, 255).to(torch.uint8)
    rows = [torch.cat(list(part), dim=2) for part in pixels[: len(pixels) // columns * columns].split(columns)]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(torch.cat(rows, dim=1).permute(1, 2, 0).contiguous().cpu().numpy()).save(path)
    return path
