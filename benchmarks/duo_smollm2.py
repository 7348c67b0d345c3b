"""Accuracy against cache bytes of SmolLM2-135M: ``python benchmarks/duo_smollm2.py --lengths 1024 2048 --items 4``.

Every cell (cache x length x item) is one forward pass and is written as soon as it is done, so the script goes on where it was stopped and more items
or lengths can be added later.  Passkey: a 5-digit number in Python's documentation, teacher-forced, all digits right (evaluator ``passkey``).
Perplexity: second half of 1024-token windows (evaluator ``perplexity``).  Both read the documentation from character 300,000 on; the pattern was learnt
on its first 1024 tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

SINK, RECENT = 16, 64
CACHES: dict[str, dict[str, Any]] = {
    "full": {"name": "full"},
    "duo 50 %": {"name": "duo", "sparsity": 0.5},
    "duo 25 %": {"name": "duo", "sparsity": 0.75},
    "random 50 %": {"name": "duo", "pattern": "random", "sparsity": 0.5, "sink": SINK, "recent": RECENT},
    "random 25 %": {"name": "duo", "pattern": "random", "sparsity": 0.75, "sink": SINK, "recent": RECENT},
    "streaming only": {"name": "duo", "pattern": "streaming", "sink": SINK, "recent": RECENT},
    "duo-kv4 50 %": {"name": "duo-kv4", "sparsity": 0.5},
}
"""Percentages are the share of kv-heads that keep everything."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--items", type=int, default=4, help="passkeys per cell")
    parser.add_argument("--windows", type=int, default=2, help="perplexity windows per cache")
    parser.add_argument("--caches", nargs="+", default=list(CACHES), choices=list(CACHES))
    parser.add_argument("--minutes", type=float, default=0, help="begin no new item after this time (0: no limit)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "duo_smollm2.json")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    begin = time.monotonic()
    import torch
    from zoo_llm.compose import cache_plan
    from zoo_llm.evaluation.passkey import Passkey
    from zoo_llm.evaluation.perplexity import Perplexity
    from zoo_llm.evaluation.text import load_text

    import zoo
    from zoo_core import registry

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    record: dict[str, Any] = json.loads(args.output.read_text()) if args.output.exists() else {"schema": 1, "benchmark": "duo_smollm2", "cells": {}}
    cells: dict[str, Any] = record["cells"]
    lm: Any = zoo.load("smollm2-135m-instruct", device="cpu", dtype="float32")
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(load_text()[300_000:])
        file.flush()
        # depth of item i must not depend on the number of items asked for: eight places, taken in an order that covers the range early
        order = [2, 5, 1, 6, 3, 7, 0, 4]
        jobs: list[tuple[str, int, Any]] = []
        for window in range(args.windows):
            jobs.append(("perplexity", 1024, window))
        for length in args.lengths:
            jobs += [("passkey", length, order[i]) for i in range(min(args.items, len(order)))]
        for kind, length, index in jobs:
            if args.minutes and time.monotonic() - begin > 60 * args.minutes:
                break
            for name in args.caches:
                key = f"{kind}|{length}|{index}|{name}"
                if key in cells:
                    continue
                start = time.perf_counter()
                options = dict(CACHES[name])
                if options.get("pattern") == "random":
                    options["seed"] = index  # another random pattern for every item
                lm.set_cache(cache_plan(registry.get_registry(), lm, options))
                test: Any
                if kind == "passkey":
                    test = Passkey(lengths=[length], repeats=len(order), text=file.name)
                else:
                    test = Perplexity(length=length, windows=args.windows, text=file.name, chunk=64)  # small: what is scored has gone through the storage
                items = [test.items()[index]]
                samples = list(test.score(list(test.generate(lm, items, Path(), seed=0)), Path()))
                outputs = samples[0].outputs
                kept = {k: outputs[k] for k in ("cache_bytes", "log_likelihood", "tokens") if k in outputs}
                cells[key] = {**samples[0].scores, **kept, "seconds": round(time.perf_counter() - start, 2)}
                print(key, cells[key], flush=True)
                record.update(
                    command="python benchmarks/duo_smollm2.py --lengths " + " ".join(map(str, args.lengths)) + f" --items {args.items}",
                    date=time.strftime("%Y-%m-%d"), torch=torch.__version__, dtype="float32", machine=f"{platform.machine()}, {os.cpu_count()} cores",
                )  # fmt: skip
                args.output.parent.mkdir(parents=True, exist_ok=True)
                args.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(table(cells))


def table(cells: dict[str, Any]) -> str:
    """Markdown: a row per cache; passkeys right / asked (digits right) and cache MB per length, perplexity."""
    import math

    lengths = sorted({int(key.split("|")[1]) for key in cells if key.startswith("passkey")})
    heads = ["cache"] + [f"passkeys at {n} (digits)" for n in lengths] + [f"cache MB at {n}" for n in lengths] + ["perplexity"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name in CACHES:
        right, sizes = [], []
        for n in lengths:
            found = [c for key, c in cells.items() if key.startswith(f"passkey|{n}|") and key.endswith(f"|{name}")]
            digits = f" ({sum(c['digits'] for c in found) / len(found):.0%})" if found else ""
            right.append(f"{sum(c['accuracy'] for c in found):.0f}/{len(found)}{digits}" if found else "-")
            sizes.append(f"{max(c['cache_bytes'] for c in found) / 1e6:.1f}" if found else "-")
        windows = [c for key, c in cells.items() if key.startswith("perplexity|") and key.endswith(f"|{name}")]
        nats = -sum(c["log_likelihood"] for c in windows) / sum(c["tokens"] for c in windows) if windows else float("nan")
        lines.append("| " + " | ".join([name, *right, *sizes, f"{math.exp(nats):.2f}" if windows else "-"]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
