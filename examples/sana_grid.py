"""Sana as a user would use it: a grid of prompts and seeds, one word changed, and a walk between two prompts.

python examples/sana_grid.py                                  # the embedded emoji model, pictures in ./sana-grid
python examples/sana_grid.py --model sana-0.6b --steps 20     # published weights (needs a GPU and a download)
python examples/sana_grid.py --random                         # a tiny random model: only shows that everything runs
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

# %% Arguments ------------------------------------------------------------------------------------------------------------------

TINY: dict[str, Any] = {
    "transformer": {"in_channels": 32, "out_channels": 32, "heads": 2, "head_dim": 16, "cross_heads": 2, "layers": 1, "caption_channels": 32, "sample_size": 2},
    "text_tokens": 16,
    "instruction": False,
}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sana-emoji")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--random", action="store_true", help="tiny random weights instead of the model's own")
    parser.add_argument("--output", type=Path, default=Path("sana-grid"))
    return parser.parse_args(argv)


# %% Three small pictures ---------------------------------------------------------------------------------------------------------


def sheet(rows: list[list[Any]]) -> Any:
    """Pictures in rows -> one picture."""
    from PIL import Image

    width, height = rows[0][0].size
    page = Image.new("RGB", (width * len(rows[0]), height * len(rows)), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            page.paste(picture, (x * width, y * height))
    return page


def grid(model: Any, prompts: list[str], seeds: list[int], **options: Any) -> Any:
    """A row per prompt, a column per seed."""
    return sheet([[model.generate(prompt, seed=seed, **options).images[0] for seed in seeds] for prompt in prompts])


def one_word(model: Any, template: str, words: list[str], seed: int, **options: Any) -> Any:
    """The same seed with one word changed."""
    return sheet([[model.generate(template.format(word), seed=seed, **options).images[0] for word in words]])


def walk(model: Any, first: str, second: str, count: int, seed: int, **options: Any) -> Any:
    """Linear interpolation of the text features of two prompts, same noise."""
    a, mask_a = model.encode_text([first])
    b, mask_b = model.encode_text([second])
    mask = (mask_a.bool() | mask_b.bool()).long()
    pictures = []
    for i in range(count):
        share = i / (count - 1)
        text = ((1 - share) * a + share * b, mask)
        pictures.append(model.generate(first, text=text, seed=seed, **options).images[0])
    return sheet([pictures])


# %% Main -----------------------------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> list[Path]:
    import zoo

    args = arguments(argv)
    options: dict[str, Any] = {} if args.steps is None else {"steps": args.steps}
    if args.random:
        model = zoo.load("sana-0.6b-1024", weights="random", device="cpu", dtype="float32", overrides=TINY)
        options.update(steps=args.steps or 1, height=64, width=64, binning=False)
    else:
        model = zoo.load(args.model)
    args.output.mkdir(parents=True, exist_ok=True)
    pages = {
        "grid.png": grid(model, ["a slice of pizza", "a red apple", "a cat face"], [0, 1, 2], **options),
        "one-word.png": one_word(model, "a {} heart", ["red", "blue", "green"], 3, **options),
        "walk.png": walk(model, "a smiling face", "a crying face", 4, 5, **options),
    }
    written = []
    for name, page in pages.items():
        page.save(args.output / name)
        written.append(args.output / name)
        print(args.output / name)
    return written


if __name__ == "__main__":
    main()
