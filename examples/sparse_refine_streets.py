"""SparseRefine as a user would use it: a street in which thin things matter, segmented without and with refinement, side by side.

python examples/sparse_refine_streets.py --output streets.png                # the small trained model, on a scene it never saw
python examples/sparse_refine_streets.py --images a.jpg b.jpg                # pictures of your own (no truth, so no scores)
python examples/sparse_refine_streets.py --random --height 128 --width 256   # random weights: only shows that everything runs
"""

from __future__ import annotations

import argparse
from typing import Any

TINY = {"baseline.height": 64, "baseline.width": 128, "height": 128, "width": 256}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="*", default=[], help="pictures; default: generated streets")
    parser.add_argument("--scenes", type=int, default=2, help="generated streets, when no pictures are given")
    parser.add_argument("--seed", type=int, default=1, help="of the streets; the model was trained on seed 0")
    parser.add_argument("--height", type=int, default=1024)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--share", type=float, default=0.05, help="share of the pixels that is refined")
    parser.add_argument("--output", default="streets.png", help="sheet: picture, dense, refined, truth; every row a scene and below it a part at full size")
    parser.add_argument("--random", action="store_true", help="random weights")
    return parser.parse_args(argv)


def coloured(labels: Any, palette: list[tuple[int, int, int]]) -> Any:
    """A class map as a picture; labels without a class are black."""
    import numpy as np
    from PIL import Image

    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(palette)] = palette
    return Image.fromarray(table[labels])


def detail(labels: Any, other: Any, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Where two class maps differ most: left, top, right, bottom of a window of ``size`` (width, height)."""
    import numpy as np

    width, height = min(size[0], labels.shape[1]), min(size[1], labels.shape[0])
    sums = np.pad((labels != other).astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    counts = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(int(counts.argmax()), counts.shape)
    return int(left), int(top), int(left) + width, int(top) + height


def sheet(rows: list[list[Any]], boxes: list[tuple[int, int, int, int]], width: int = 480) -> Any:
    """All pictures of a scene in one row, and the same part of each below it."""
    from PIL import Image

    cells = []
    for pictures, box in zip(rows, boxes, strict=True):
        cells.append([picture.resize((width, round(picture.height * width / picture.width))) for picture in pictures])
        size = (width, round(width * (box[3] - box[1]) / (box[2] - box[0])))
        cells.append([picture.crop(box).resize(size, Image.Resampling.NEAREST) for picture in pictures])
    canvas = Image.new("RGB", (width * max(len(row) for row in cells), sum(row[0].height for row in cells)), "white")
    top = 0
    for row in cells:
        for column, cell in enumerate(row):
            canvas.paste(cell, (column * width, top))
        top += row[0].height
    return canvas


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    import numpy as np
    from PIL import Image

    import zoo

    args = arguments(argv)
    options: dict[str, Any] = {"weights": "random", "overrides": TINY} if args.random else {}
    model = zoo.load("sparse-refine-streets", device="cpu", **options)
    pictures, truths = [Image.open(path).convert("RGB") for path in args.images], [None] * len(args.images)
    if not pictures:
        from zoo_sparse_refine.streets import make_scene

        scenes = [make_scene(args.seed, number, height=args.height, width=args.width) for number in range(args.scenes)]
        pictures, truths = [Image.fromarray(scene.image) for scene in scenes], [scene.labels for scene in scenes]
    lines, rows, boxes = [], [], []
    for number, (picture, truth) in enumerate(zip(pictures, truths, strict=True)):
        dense = model.segment(picture, refine=False)
        refined = model.segment(picture, top_k=args.share)
        line: dict[str, Any] = {"scene": number, "refined_share": refined.info["refined_share"][0]}
        for name, result in (("dense", dense), ("refined", refined)):
            line[f"{name}_ms"] = sum(result.info["milliseconds"][0].values())
            if truth is not None:
                counted = truth != 255
                line[f"{name}_accuracy"] = float((result.labels[0] == truth)[counted].mean())
        lines.append(line)
        print("  ".join(f"{key} {value:.4g}" for key, value in line.items()))
        shown = [picture, *(coloured(np.asarray(labels), model.palette) for labels in (dense.labels[0], refined.labels[0], truth) if labels is not None)]
        rows.append(shown)
        boxes.append(detail(dense.labels[0], refined.labels[0], (picture.width // 6, picture.height // 6)))
    sheet(rows, boxes).save(args.output)
    print(f"wrote {args.output}")
    return lines


if __name__ == "__main__":
    main()
