"""DC-AE encode and decode against diffusers' ``AutoencoderDC`` (same weights, one process, calls in turns).

    python benchmarks/dc_ae_vs_diffusers.py [--sizes 512 1024] [--dtypes float32 bfloat16] [--rounds 3] [--threads 2] [--output FILE]

Rows are added to the output file cell by cell, so that sizes and dtypes can be measured in several runs; a cell that is measured again replaces the old one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from zoo_dc_ae.benchmark import MODEL, measure

from zoo_core.bench import BenchContext
from zoo_core.evaluation import provenance
from zoo_core.evaluation.results import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/dc-ae-vs-diffusers.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    context = BenchContext(torch.device(options.device), seconds=1e9, log=lambda text: print(text, flush=True))
    old = json.loads(options.output.read_text())["rows"] if options.output.exists() else []
    for dtype in options.dtypes:
        for size in options.sizes:
            rows = measure(context, sizes=[size], dtypes=[dtype], model=options.model, rounds=options.rounds)
            rows = [provenance.plain(row) | {"model": options.model, "date": provenance.now()} for row in rows]
            old = [row for row in old if row["cell"] not in {new["cell"] for new in rows}] + rows
            record = {"schema": 1, "kind": "benchmark", "name": "dc-ae-vs-diffusers", "against": "diffusers AutoencoderDC", "rows": old}
            record |= {"command": "python benchmarks/dc_ae_vs_diffusers.py", "device": options.device, "seed": context.seed, "date": provenance.now()}
            write_json(options.output, record | {"versions": provenance.versions(), "machine": provenance.machine()})


if __name__ == "__main__":
    main()
