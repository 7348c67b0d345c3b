"""Latents and captions of the emoji set, prepared once; a training batch is then a gather."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo_sana.training import captions as words
from zoo_sana.training.colours import COLOURS, dominant_hue, recolour, without_colour
from zoo_sana.training.config import EmojiTrainConfig

GROUP_WEIGHTS = {"symbols": 0.12, "flags": 0.15, "people": 0.35}
"""How often a group is drawn; 1 for the others (faces, animals, food, travel, activities, objects)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One training picture: its record and, when recoloured, the colour."""

    code: str
    name: str
    keywords: tuple[str, ...]
    group: str
    style: str
    colour: str | None
    held_out: bool


@dataclass(slots=True)
class EmojiLatents:
    """Latents [N, C, h, w] times the scaling factor, and their rows."""

    latents: Tensor
    rows: list[Row]
    scaling_factor: float

    def where(self, *, held_out: bool, coloured: bool | None = None) -> list[int]:
        """Positions of one side of the split."""
        return [i for i, row in enumerate(self.rows) if row.held_out == held_out and (coloured is None or (row.colour is not None) == coloured)]


def held_out_pair(code: str, other: str, fraction: float, seed: int) -> bool:
    """Whether a combination (emoji, style) or (emoji, colour) is kept from training."""
    digest = hashlib.sha256(f"{seed}:{code}:{other}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def collect(config: EmojiTrainConfig, log: Callable[[str], None] = print) -> tuple[np.ndarray, list[Row]]:
    """Pictures on white, uint8 [N, size, size, 3], and their rows: every style, plus recoloured copies."""
    from zoo_core.datasets.emoji import build_emoji_set

    data = build_emoji_set(size=config.size, folder=config.data_folder or None, log=log)
    draw = random.Random(config.seed)
    pictures, rows = [], []
    for index in data.indices(styles=config.styles):
        record, rgba = data.records[index], data.images[index]
        pictures.append(rgba)
        held = held_out_pair(record.code, record.style, config.held_out, config.seed)
        rows.append(Row(record.code, record.name, record.keywords, record.group, record.style, None, held))
        hue = dominant_hue(rgba) if record.group in words.PLAIN_GROUPS and record.group != "people" else None
        if hue is None:
            continue
        distance = {name: abs((COLOURS[name][0] - hue + 180) % 360 - 180) for name in COLOURS}
        far = [name for name in COLOURS if distance[name] > 30]
        for colour in draw.sample(far, min(config.colour_copies, len(far))):
            held = held_out_pair(record.code, colour, config.held_out, config.seed)
            pictures.append(recolour(rgba, hue, colour))
            rows.append(Row(record.code, without_colour(record.name), record.keywords, record.group, record.style, colour, held))
    alpha = np.stack([p[..., 3:] for p in pictures]).astype(np.uint16)
    colours = np.stack([p[..., :3] for p in pictures]).astype(np.uint16)
    return ((colours * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8), rows


@torch.no_grad()
def encode(pictures: np.ndarray, rows: list[Row], encoder: Callable[[Tensor], Tensor], scaling_factor: float, batch: int = 64) -> EmojiLatents:
    """Latents of all pictures, times the autoencoder's scaling factor."""
    parts = []
    for start in range(0, len(pictures), batch):
        images = torch.from_numpy(pictures[start : start + batch]).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        parts.append(encoder(images.contiguous(memory_format=torch.channels_last)).float())
    return EmojiLatents(torch.cat(parts).contiguous() * scaling_factor, rows, scaling_factor)


def save(data: EmojiLatents, path: str | Path) -> None:
    """safetensors with the rows as JSON in the metadata."""
    from dataclasses import asdict

    from safetensors.torch import save_file

    text = json.dumps({"scaling_factor": data.scaling_factor, "rows": [asdict(row) for row in data.rows]})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file({"latents": data.latents.half().contiguous()}, path, metadata={"emoji": text})


def load(path: str | Path) -> EmojiLatents:
    """What :func:`save` wrote."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        latents, text = file.get_tensor("latents").float(), json.loads(file.metadata()["emoji"])
    rows = [Row(**{**row, "keywords": tuple(row["keywords"])}) for row in text["rows"]]
    return EmojiLatents(latents, rows, text["scaling_factor"])


def caption_pool(rows: list[Row], config: EmojiTrainConfig) -> list[list[str]]:
    """``config.captions`` captions for each row, the same for the same seed."""
    draw = random.Random(config.seed + 1)
    make = words.caption
    return [[make(r.name, r.keywords, r.group, r.style, config.default_style, draw, r.colour) for _ in range(config.captions)] for r in rows]


def tokenise(pool: list[list[str]], tokenizer: Any, length: int) -> Tensor:
    """Token ids, 0-padded on the right: int32 [rows, captions, length]."""
    flat = [text for texts in pool for text in texts]
    ids = tokenizer(flat, padding="max_length", truncation=True, max_length=length, return_tensors="pt").input_ids
    return ids.to(torch.int32).reshape(len(pool), -1, length)


def draw_counts(rows: list[Row], config: EmojiTrainConfig) -> list[int]:
    """How often each row appears in one epoch: by style, by group, twice for names of one word (what people type); recoloured copies count half."""
    weights = dict(zip(config.styles, config.style_weights))

    def weight(row: Row) -> float:
        copies = 0.5 / max(config.colour_copies, 1) if row.colour else 1.0
        plain = 2.0 if len(words.clean(row.name).split()) == 1 else 1.0
        return 0.0 if row.held_out else 2 * weights[row.style] * GROUP_WEIGHTS.get(row.group, 1.0) * copies * plain

    wish = [weight(row) for row in rows]
    return [int(value) + (random.Random(f"{config.seed}-{i}").random() < value % 1) for i, value in enumerate(wish)]


class CaptionedLatents:
    """Batch transform: picks one prepared caption per row, drops some; trims the padding that the whole batch shares."""

    def __init__(self, latents: Tensor, tokens: Tensor, empty: Tensor, dropout: float) -> None:
        self.latents, self.tokens, self.empty, self.dropout = latents, tokens, empty, dropout

    def __call__(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        rows = batch["row"].long()
        which = torch.randint(self.tokens.shape[1], (len(rows),), generator=generator)
        ids = self.tokens[rows, which].long()
        ids[torch.rand(len(rows), generator=generator) < self.dropout] = self.empty
        used = int((ids != 0).sum(1).max())
        ids = ids[:, : max(used, 1)]
        return {"latents": self.latents[rows], "ids": ids, "mask": (ids != 0).long()}
