"""DC-AE as a user would use it: pictures through the autoencoder, the latent changed on the way, a large picture in tiles.

python examples/dc_ae_pictures.py photo.jpg --model dc-ae-f32c32-sana-1.1     # published weights (a download)
python examples/dc_ae_pictures.py --random                                    # a tiny random model: only shows that everything runs
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

# %% Arguments ------------------------------------------------------------------------------------------------------------------

CODER: dict[str, Any] = {
    "widths": [16, 32, 64],
    "depths": [1, 1, 1],
    "blocks": ["res", "res", "vit"],
    "scales": [[], [], [5]],
    "norms": ["rms_norm"] * 3,
    "activations": ["silu"] * 3,
}
TINY: dict[str, Any] = {"latent_channels": 8, "encoder": {**CODER, "resample": "conv"}, "decoder": {**CODER, "resample": "interpolate"}}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", help="default: two drawn pictures")
    parser.add_argument("--model", default="dc-ae-f32c32-sana-1.1")
    parser.add_argument("--random", action="store_true", help="tiny random weights instead of the model's own")
    parser.add_argument("--tile", type=int, default=64, help="tile of the tiling demonstration, in pixels")
    parser.add_argument("--output", type=Path, default=Path("dc-ae-pictures"))
    return parser.parse_args(argv)


def drawn() -> list[Any]:
    """A gradient and a disc, of sizes that are no multiple of anything."""
    from PIL import Image, ImageDraw

    gradient = Image.linear_gradient("L").resize((150, 100)).convert("RGB")
    disc = Image.new("RGB", (97, 131), "navy")
    ImageDraw.Draw(disc).ellipse((20, 30, 80, 90), fill="gold")
    return [gradient, disc]


# %% Three things to do with an autoencoder --------------------------------------------------------------------------------------


def before_and_after(model: Any, pictures: list[Any]) -> list[Any]:
    """Each picture beside its reconstruction; sizes are kept whatever they are."""
    from PIL import Image

    pages = []
    for original, rebuilt in zip(pictures, model.reconstruct(pictures).images, strict=True):
        page = Image.new("RGB", (2 * original.width, original.height), "white")
        page.paste(original, (0, 0))
        page.paste(rebuilt, (original.width, 0))
        pages.append(page)
    return pages


def blend(model: Any, one: Any, other: Any, steps: int = 5) -> list[Any]:
    """Walk from one picture to the other in the latent space."""
    from zoo_dc_ae.images import pad_reflect, to_pictures, to_tensor

    first, second = (model.encode(pad_reflect(to_tensor(picture.resize(one.size))[None], model.ratio)) for picture in (one, other))
    return [to_pictures(model.decode(first.lerp(second, i / (steps - 1)), size=(one.height, one.width)))[0] for i in range(steps)]


def in_tiles(model: Any, picture: Any, tile: int) -> Any:
    """The picture in tiles that are added up under overlapping windows: bounded memory, no seams."""
    side = max(model.ratio, tile // model.ratio * model.ratio)
    return model.reconstruct(picture, tiling="window", tile=side).images[0]


# %% Run -------------------------------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> list[Path]:
    from zoo_dc_ae.images import open_picture

    import zoo

    options = arguments(argv)
    model = zoo.load(options.model, weights="random", overrides=TINY) if options.random else zoo.load(options.model)
    pictures = [open_picture(path) for path in options.pictures] or drawn()
    print(f"{model.name}: ratio {model.ratio}, {model.latent_channels} latent channels, {model.num_parameters:,} parameters")
    print(f"decoding 1024 x 1024 pixels needs about {model.estimate_memory(1024, 1024) / 2**30:.1f} GiB beside the weights")
    options.output.mkdir(parents=True, exist_ok=True)
    named = {f"pair-{i}": page for i, page in enumerate(before_and_after(model, pictures))}
    named |= {f"blend-{i}": page for i, page in enumerate(blend(model, pictures[0], pictures[-1]))}
    named["tiled"] = in_tiles(model, pictures[0], options.tile)
    written = []
    for name, page in named.items():
        page.save(options.output / f"{name}.png")
        written.append(options.output / f"{name}.png")
    return written


if __name__ == "__main__":
    for file in main():
        print(file)
