"""``python -m zoo_sparse_refine.streets --output street.png [--labels labels.png] [--seed 1] [--index 0]``: draw a scene."""

from __future__ import annotations

import argparse

from PIL import Image

from zoo_sparse_refine.streets import PALETTE
from zoo_sparse_refine.streets.scene import make_scene


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m zoo_sparse_refine.streets", description="Draw a generated street scene.")
    parser.add_argument("--output", default="street.png")
    parser.add_argument("--labels", default="", help="also write the label map, in colours")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--height", type=int, default=1024)
    parser.add_argument("--width", type=int, default=2048)
    options = parser.parse_args()
    scene = make_scene(options.seed, options.index, height=options.height, width=options.width)
    Image.fromarray(scene.image).save(options.output)
    if options.labels:
        picture = Image.fromarray(scene.labels).convert("P")
        picture.putpalette([value for colour in PALETTE for value in colour])
        picture.save(options.labels)


if __name__ == "__main__":
    main()
