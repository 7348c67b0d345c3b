"""Sample sheet and held-out measures of a trained emoji model, through the same ``generate`` that users call.

    python -m zoo_sana.training.report --model sana-emoji --sheet docs/pictures/sana-emoji.png --json report.json

Retrieval asks whether the nearest emoji (in the autoencoder's latent space, every style) is the one that was named; the novelty measure asks for colours that
this emoji was never trained in and checks the hue of the result; the Frechet distance is between latents of generated and of real pictures of the pairs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo_sana.training import data as emoji
from zoo_sana.training.colours import COLOURS, dominant_hue
from zoo_sana.training.config import EmojiTrainConfig
from zoo_sana.training.evaluate import frechet_distance, plain_prompt, retrieval

PLAIN = (
    "a slice of pizza", "a red apple", "a cat", "a dog", "a red heart", "a star", "a car", "a smiling face",
    "a rocket", "a rose", "a house", "a fish", "the sun", "a strawberry", "a palm tree", "a banana",
)  # fmt: skip
NOVEL = ("a blue apple", "a green cat", "a red banana", "a blue dog", "a yellow rose", "a blue mushroom", "a red pear", "a pink rocket")
"""The first is among the recoloured training pictures; the others were never seen in that colour."""

STYLED = (
    "a cat in google style", "a cat in microsoft style", "an apple in google style", "a rocket in google style",
    "a rocket in microsoft style", "pizza in google style", "pizza in microsoft style", "a house in google style",
)  # fmt: skip


def generate_images(model: Any, prompts: Sequence[str], *, seed: int, size: int = 128, batch: int = 32, **options: Any) -> list[Any]:
    """Pictures (PIL) of all prompts."""
    images: list[Any] = []
    for start in range(0, len(prompts), batch):
        images += model.generate(list(prompts[start : start + batch]), seed=seed + start, height=size, width=size, **options).images
    return images


def to_tensor(images: Sequence[Any]) -> Tensor:
    """[N, 3, H, W] in [-1, 1]."""
    import numpy as np

    return torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in images])).permute(0, 3, 1, 2).float() / 127.5 - 1


def labelled_sheet(images: Sequence[Any], prompts: Sequence[str], columns: int = 8, label: int = 20) -> Any:
    """One picture: tiles with their prompts below."""
    from PIL import Image, ImageDraw, ImageFont

    side, rows = images[0].width, -(-len(images) // columns)
    pad = 8
    sheet = Image.new("RGB", (columns * (side + pad) + pad, rows * (side + label + pad) + pad), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=11)
    for index, (image, prompt) in enumerate(zip(images, prompts)):
        x, y = pad + index % columns * (side + pad), pad + index // columns * (side + label + pad)
        sheet.paste(image, (x, y))
        draw.text((x + side / 2, y + side + label / 2), prompt, fill=(90, 90, 90), font=font, anchor="mm")
    return sheet


@torch.no_grad()
def measure(
    model: Any, config: EmojiTrainConfig, *, bank: emoji.EmojiLatents | None = None, count: int = 192, seed: int = 0, **options: Any
) -> dict[str, float]:
    """Numbers of the module's docstring, for at most ``count`` prompts each; ``bank``: latents of the set, when they are at hand."""
    encoder = model.autoencoder.encode
    if bank is None:
        bank = emoji.encode(*emoji.collect(config, log=lambda text: None), encoder, model.autoencoder.scaling_factor)
    rows = bank.rows
    pick = torch.Generator().manual_seed(seed)

    def choose(places: list[int]) -> list[int]:
        return [places[i] for i in torch.randperm(len(places), generator=pick)[:count].tolist()]

    result: dict[str, float] = {}
    seen = [i for i in bank.where(held_out=False, coloured=False) if rows[i].style == config.default_style]
    for name, places in (("seen", choose(seen)), ("held_out_pairs", choose(bank.where(held_out=True, coloured=False)))):
        asked = [rows[i] for i in places]
        images = generate_images(model, [plain_prompt(row, config.default_style) for row in asked], seed=seed, size=config.size, **options)
        made = torch.cat([encoder(part) for part in to_tensor(images).split(32)]).float() * bank.scaling_factor
        result |= {f"{name}_{key}": round(value, 4) for key, value in retrieval(made, asked, bank).items()}
        result[f"{name}_count"] = len(asked)
        result[f"{name}_latent_frechet"] = round(frechet_distance(made.flatten(1), bank.latents[places].flatten(1)), 2)
    places = choose(bank.where(held_out=True, coloured=True))
    images = generate_images(model, [plain_prompt(rows[i], config.default_style) for i in places], seed=seed, size=config.size, **options)
    result["novel_colour_accuracy"] = round(sum(_shows(image, rows[i].colour) for image, i in zip(images, places)) / max(len(places), 1), 4)
    result["novel_colour_count"] = len(places)
    return result


def _shows(image: Any, colour: str | None) -> bool:
    """Whether the saturated part of a picture has the hue of a colour word (within 30 degrees)."""
    import numpy as np

    pixels = np.asarray(image.convert("RGB"))
    drawn = np.where((pixels.min(-1) < 235)[..., None], 255, 0).astype(np.uint8)
    hue = dominant_hue(np.concatenate([pixels, drawn], -1), share=0.4, coverage=0.1)
    return hue is not None and colour is not None and abs((COLOURS[colour][0] - hue + 180) % 360 - 180) <= 30


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    import zoo

    parser = argparse.ArgumentParser(description="Sample sheet and held-out measures of an emoji model.")
    parser.add_argument("--model", default="sana-emoji", help="name or folder")
    parser.add_argument("--sheet", default="", help="PNG to write")
    parser.add_argument("--json", default="", help="write the measures here (builds the emoji data set)")
    parser.add_argument("--data-folder", default="", help="where the emoji set is kept")
    parser.add_argument("--latents", default="", help="latents.safetensors of a run, instead of building the set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--count", type=int, default=192)
    given = parser.parse_args(arguments)
    model = zoo.load(given.model, device="cpu")
    options = {"steps": given.steps, "guidance": given.guidance}
    if given.sheet:
        prompts = [*PLAIN, *NOVEL, *STYLED]
        Path(given.sheet).parent.mkdir(parents=True, exist_ok=True)
        labelled_sheet(generate_images(model, prompts, seed=given.seed, **options), prompts).save(given.sheet, optimize=True)
    if given.json:
        bank = emoji.load(given.latents) if given.latents else None
        result = measure(model, EmojiTrainConfig(data_folder=given.data_folder), bank=bank, count=given.count, seed=given.seed, **options)
        result |= {"model": given.model, "seed": given.seed, **options}
        Path(given.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
