"""Loading 1.2 GB of weights: the zoo's reader against diffusers' ``from_pretrained``, on one file, into one module class.

    python benchmarks/load_weights.py [--repeats 5] [--output benchmarks/results/load_weights.json]

The file has the shapes of Sana 0.6B (bfloat16, made on the fly with random values).  Every measurement runs in a fresh process with a warm page cache; the two
loaders take turns.  Imports are not timed.  ``seconds`` is building the module and loading, ``cpu`` the processor time of that; ``first_pass`` reads every
weight once afterwards (a mapped file is only read then); ``peak_mb`` is how far the process's peak memory rose above its level before, without that pass.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CONFIG = {
    "in_channels": 32, "out_channels": 32, "num_layers": 28, "num_attention_heads": 36, "attention_head_dim": 32, "num_cross_attention_heads": 16,
    "cross_attention_head_dim": 72, "cross_attention_dim": 1152, "caption_channels": 2304, "mlp_ratio": 2.5, "patch_size": 1, "sample_size": 32,
}  # fmt: skip
CASES = (("zero-copy", "bfloat16"), ("cast", "float32"))


def prepare(folder: Path) -> dict[str, Any]:
    """Write config.json and the weights; returns counts."""
    import torch
    from diffusers import SanaTransformer2DModel

    from zoo_core.checkpoint import save_checkpoint

    with torch.device("meta"):
        module = SanaTransformer2DModel(**CONFIG)
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.empty(value.shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator) for name, value in module.state_dict().items()}
    (path,) = save_checkpoint(tensors, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps({"_class_name": "SanaTransformer2DModel", **CONFIG}))
    return {"tensors": len(tensors), "parameters": sum(value.numel() for value in tensors.values()), "file_bytes": path.stat().st_size}


def ours(folder: Path, dtype: str) -> Any:
    import torch
    from diffusers import SanaTransformer2DModel

    from zoo_core.checkpoint import load_into, open_checkpoint

    config = json.loads((folder / "config.json").read_text())
    config.pop("_class_name")
    with torch.device("meta"):
        module = SanaTransformer2DModel(**config)
    load_into(module, open_checkpoint(folder), dtype=getattr(torch, dtype))
    return module


def diffusers(folder: Path, dtype: str) -> Any:
    import torch
    from diffusers import SanaTransformer2DModel

    return SanaTransformer2DModel.from_pretrained(folder, torch_dtype=getattr(torch, dtype), local_files_only=True)


def memory(key: str) -> float:
    """A line of ``/proc/self/status`` in MB."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)) * 1024 / 1e6


def child(loader: str, folder: Path, dtype: str) -> None:
    """One measurement, printed as JSON."""
    import torch
    from diffusers import SanaTransformer2DModel  # noqa: F401

    import zoo_core.checkpoint.load
    import zoo_core.checkpoint.open  # noqa: F401

    torch.set_num_threads(1)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before = memory("VmRSS")
    begin, cpu = time.perf_counter(), time.process_time()
    module = {"ours": ours, "diffusers": diffusers}[loader](folder, dtype)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    peak, kept = memory("VmHWM") - before, memory("VmRSS") - before
    begin = time.perf_counter()
    total = sum(float(value.detach().float().abs().sum()) for value in module.parameters())
    first = time.perf_counter() - begin
    wrong = [name for name, value in module.named_parameters() if value.dtype != getattr(torch, dtype) and "norm" not in name and "scale_shift" not in name]
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mb": peak, "kept_mb": kept, "first_pass": first, "checksum": total, "other_dtype": len(wrong)}))


def measure(folder: Path, repeats: int) -> list[dict[str, Any]]:
    rows = []
    for cell, dtype in CASES:
        runs: dict[str, list[dict[str, float]]] = {"ours": [], "diffusers": []}
        for number in range(repeats):
            for loader in ("ours", "diffusers") if number % 2 == 0 else ("diffusers", "ours"):
                command = [sys.executable, __file__, "--child", loader, "--folder", str(folder), "--dtype", dtype]
                result = subprocess.run(command, capture_output=True, text=True, check=True)
                runs[loader].append(json.loads(result.stdout.splitlines()[-1]))
        sums = {round(run["checksum"], 2) for values in runs.values() for run in values}
        if len(sums) != 1:
            raise SystemExit(f"{cell}: the loaders gave different weights: {sums}")
        median = {loader: {key: statistics.median(run[key] for run in values) for key in values[0]} for loader, values in runs.items()}
        rows.append(
            {
                "cell": f"{cell} ({dtype})",
                "other": "diffusers",
                "ours_ms": median["ours"]["seconds"] * 1e3,
                "other_ms": median["diffusers"]["seconds"] * 1e3,
                "ratio": median["diffusers"]["seconds"] / median["ours"]["seconds"],
                "ours_cpu_ms": median["ours"]["cpu"] * 1e3,
                "other_cpu_ms": median["diffusers"]["cpu"] * 1e3,
                "ours_peak_mb": median["ours"]["peak_mb"],
                "other_peak_mb": median["diffusers"]["peak_mb"],
                "ours_kept_mb": median["ours"]["kept_mb"],
                "other_kept_mb": median["diffusers"]["kept_mb"],
                "ours_first_pass_ms": median["ours"]["first_pass"] * 1e3,
                "other_first_pass_ms": median["diffusers"]["first_pass"] * 1e3,
                "runs": runs,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "load_weights.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="Keep the generated file here (default: a temporary folder).")
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.folder, arguments.dtype)
        return
    from importlib.metadata import version

    from zoo_core.evaluation.provenance import machine

    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        facts = prepare(folder)
        rows = measure(folder, arguments.repeats)
    result = {
        "schema": 1,
        "name": "load_weights",
        "date": time.strftime("%Y-%m-%d"),
        "command": f"python benchmarks/load_weights.py --repeats {arguments.repeats}",
        "seed": 0,
        "threads": 1,
        "machine": machine(),
        "versions": {name: version(name) for name in ("torch", "diffusers", "safetensors", "huggingface-hub")},
        "file": facts,
        "rows": rows,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1))
    for row in rows:
        for name, label in (("ours", "ours"), ("other", row["other"])):
            times = f"{row[name + '_ms']:7.0f} ms ({row[name + '_cpu_ms']:.0f} of the processor)"
            print(f"{row['cell']:22} {label:10} {times}, peak +{row[name + '_peak_mb']:6.0f} MB")


if __name__ == "__main__":
    main()
