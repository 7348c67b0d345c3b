"""Sana-0.6B shapes against diffusers' ``SanaTransformer2DModel`` and its scheduler (same weights, one process, calls in turns).

    python benchmarks/sana_vs_diffusers.py [--layers 28] [--repeats 3] [--threads 2] [--device cpu] [--output benchmarks/results]

Writes ``sana-vs-diffusers.json``; the same as ``zoo bench sana-vs-diffusers`` with a choice of depth and threads.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    import torch
    from zoo_sana import benchmark

    from zoo_core.bench import run_benchmark
    from zoo_core.registry import get_registry

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=28, help="blocks of the transformer (28: the 0.6B model)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    benchmark.LAYERS = options.layers
    spec = get_registry().get("benchmark", "sana-vs-diffusers")
    device = torch.device(options.device)
    record = run_benchmark(spec, folder=options.output, device=device, repeats=options.repeats, log=print)
    for row in record["rows"]:
        print(f"{row['cell']}: {row['ours_ms']:.0f} ms against {row['other_ms']:.0f} ms, {row['ratio']:.2f}x (processor time {row.get('cpu_ratio', 0):.2f}x)")


if __name__ == "__main__":
    main()
