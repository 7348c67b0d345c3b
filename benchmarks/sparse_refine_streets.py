"""Quality and time of the small street model on held-out scenes: dense at half resolution, refined at several shares, dense at full resolution.

    python benchmarks/sparse_refine_streets.py [--model sparse-refine-streets] [--high runs/high/export] [--scenes 12] [--threads 1] [--folder CACHE]

``--high`` is the export of ``zoo train sparse-refine/dense shrink=1`` (see plugins/sparse_refine/TRAINING.md; those weights are not shipped).  All
variants see the same scenes (seed 1; training used seed 0) in turn.  ``ms`` is the median wall time of a scene from pixels to class map, ``cpu_ms`` that of
the processor.  mIoU and boundary IoU: from counts summed over all scenes; ``thin_miou``: over the six classes that are mostly a few pixels wide.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

SHARES = (0.03, 0.05, 0.1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sparse-refine-streets")
    parser.add_argument("--weights", default="", help="a folder instead of the model's own weights")
    parser.add_argument("--high", default="", help="folder of the dense network for the full resolution")
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", default="", help="cache of scenes")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "sparse-refine-streets.json")
    return parser.parse_args()


def main() -> None:
    import torch
    from zoo_sparse_refine.data.streets import Streets
    from zoo_sparse_refine.evaluation.boundary import boundary_counts, mean_boundary_iou
    from zoo_sparse_refine.metrics import class_iou, confusion, mean_iou, pixel_accuracy
    from zoo_sparse_refine.streets.classes import THIN

    import zoo
    from zoo_core.evaluation.provenance import machine, versions
    from zoo_core.evaluation.results import write_json

    options = arguments()
    torch.set_num_threads(options.threads)
    model: Any = zoo.load(options.model, device="cpu", **({"weights": options.weights} if options.weights else {}))
    variants: dict[str, Any] = {"dense, half resolution": lambda pixels: model.network(pixels, refine=False)}
    for share in SHARES:
        variants[f"refined, {100 * share:.3g} %"] = lambda pixels, share=share: model.network(pixels, top_k=share)
    if options.high:
        high: Any = zoo.load(options.model, device="cpu", weights=options.high)
        variants["dense, full resolution"] = lambda pixels: high.network(pixels, refine=False)
    scenes = Streets(options.seed, options.scenes, folder=options.folder or None)
    count = len(scenes.classes)
    tables = {name: torch.zeros(count, count, dtype=torch.int64) for name in variants}
    edges = {name: torch.zeros(2, count, dtype=torch.int64) for name in variants}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    with torch.inference_mode():
        for index in range(len(scenes)):
            image, labels = scenes[index]
            pixels, truth = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float(), torch.from_numpy(labels.copy())
            for name, run in variants.items():
                if not index:
                    run(pixels)  # not counted
                wall, cpu = time.perf_counter(), time.process_time()
                found = run(pixels).labels[0]
                spent[name].append((time.perf_counter() - wall, time.process_time() - cpu))
                tables[name] += confusion(found, truth, count, scenes.ignore_index)
                edges[name] += boundary_counts(found, truth, count, ignore=scenes.ignore_index)
    rows = []
    for name, table in tables.items():
        iou = class_iou(table)
        rows.append(
            {
                "run": name,
                "miou": mean_iou(table),
                "thin_miou": float(iou[list(THIN)].mean()),
                "boundary_iou": mean_boundary_iou(edges[name]),
                "pixel_accuracy": pixel_accuracy(table),
                "ms": 1000 * statistics.median(wall for wall, _ in spent[name]),
                "cpu_ms": 1000 * statistics.median(cpu for _, cpu in spent[name]),
                "iou": dict(zip(scenes.classes, (round(float(value), 4) for value in iou), strict=True)),
            }
        )
        print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in rows[-1].items() if key != "iou"}))
    record = {
        "benchmark": "sparse-refine-streets",
        "settings": {"scenes": options.scenes, "seed": options.seed, "threads": options.threads, "size": [1024, 2048]},
        "rows": rows,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": versions(),
    }
    write_json(options.output, record)


if __name__ == "__main__":
    main()
