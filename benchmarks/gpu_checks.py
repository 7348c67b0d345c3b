"""Everything about the kernels that only a GPU can tell, in one command:

    python benchmarks/gpu_checks.py --output FOLDER [--quick]

1. compile: every Triton kernel for this GPU's architecture, with shared memory and code size;  2. verify: every implementation against its definition, each
in a child process (wrong or crashing ones are quarantined);  3. bench: ceilings of this GPU, then every implementation forward and with gradients in float32
and bfloat16;  4. sparse against dense convolution by share of points.  Writes ``gpu-checks.json`` after every step.  Exit code 1 when an implementation
fails, 2 without a GPU.  See docs/gpu-checks.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch


def compiled(registry: Any) -> list[dict[str, Any]]:
    """Each Triton implementation's kernels, those of the gradients too, compiled for this GPU (arguments of the operation's small example)."""
    from zoo_kernels.offline import compile_operation

    major, minor = torch.cuda.get_device_capability()
    rows: list[dict[str, Any]] = []
    for op in registry:
        if all(item.name != "triton" for item in registry.implementations(op)):
            continue
        for dtype in ("float32", "bfloat16"):
            try:
                for kernel in compile_operation(op, dtype=dtype, capability=10 * major + minor):
                    rows.append({"op": op, "dtype": dtype, "kernel": kernel.name, "shared_bytes": kernel.shared, "code_bytes": kernel.code})
            except Exception as error:  # the next kernel shall still be looked at
                rows.append({"op": op, "dtype": dtype, "error": f"{type(error).__name__}: {error}"[:400]})
    return rows


def verified(registry: Any) -> list[dict[str, Any]]:
    from zoo_kernels.probe import verify

    rows = []
    for op in registry:
        for item in registry.implementations(op):
            start = time.perf_counter()
            report = verify(op, item.name, "cuda")
            tight = max((v.error / v.tolerance for v in report.verdicts if v.tolerance and not v.skipped), default=0.0)
            rows.append({"op": op, "implementation": item.name, "passed": report.passed, "checked": report.checked, "problem": report.problem,
                         "largest_share_of_tolerance": tight, "seconds": time.perf_counter() - start})  # fmt: skip
            print(f"{'pass' if report.passed else 'FAIL'}  {op} {item.name}: {report.problem or f'{report.checked} cases'}", flush=True)
    return rows


def benched(sizes: tuple[str, ...], seconds: float) -> dict[str, Any]:
    from zoo_kernels.bench import bench, environment
    from zoo_kernels.roofline import measure

    dtypes = ("float32", "bfloat16")
    machine = measure("cuda", dtypes, seconds=1.0)
    rows = []
    for row in bench(machine, dtypes=dtypes, sizes=sizes, backward=True, seconds=seconds):
        label = f"{row.op} {row.implementation} {row.dtype} {row.size} {row.direction}"
        print(
            f"{label}: {row.seconds * 1e6:.0f} us, {row.gigabytes:.0f} GB/s, {row.share:.0%} of ceiling",
            flush=True,
        )
        rows.append(row.to_dict())
    return {**environment(machine), "rows": rows}


def sparse_against_dense(seconds: float, device: str = "cuda") -> list[dict[str, Any]]:
    """A sparse 3 x 3 convolution (float32 and bfloat16, 64 channels, 512 x 1024) against the dense one on the whole picture, by share of points."""
    import functools

    from zoo_kernels.operations.sparse_conv2d.maps import submanifold_map
    from zoo_kernels.roofline import median
    from zoo_kernels.selection import describe, select

    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        conv = select("sparse_conv2d", device=device, dtype=dtype)
        picture = torch.randn(1, 64, 512, 1024, device=device, dtype=dtype).to(memory_format=torch.channels_last)
        kernel = torch.randn(9, 64, 64, device=device, dtype=dtype)
        weight = kernel.reshape(3, 3, 64, 64).permute(3, 2, 1, 0).contiguous(memory_format=torch.channels_last)
        dense = functools.partial(torch.nn.functional.conv2d, picture, weight, padding=1)
        dense_ms = median(dense, device, seconds=seconds) * 1e3
        for share in (0.02, 0.12, 0.5, 1.0):
            blocks = torch.rand(128, 256, generator=torch.Generator().manual_seed(0)).to(device) < share
            mask = blocks.repeat_interleave(4, 0).repeat_interleave(4, 1)
            points = mask[None].nonzero().int().contiguous()
            build = functools.partial(submanifold_map, points, (512, 1024), 1)
            sparse = functools.partial(conv, picture[0].permute(1, 2, 0)[mask].contiguous(), kernel, build())
            times = {"map_ms": median(build, device, seconds=seconds) * 1e3, "sparse_ms": median(sparse, device, seconds=seconds) * 1e3}
            row = {"dtype": str(dtype), "share": share, "points": points.shape[0], "implementation": describe(conv), "dense_ms": dense_ms, **times}
            if share == 1.0:  # every pixel is a point: the same result
                expected = dense()[0].permute(1, 2, 0)[mask].float()
                row["relative_error"] = float((sparse().float() - expected).norm() / expected.norm())
            rows.append(row)
            print(f"sparse_conv2d {row}", flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for gpu-checks.json")
    parser.add_argument("--quick", action="store_true", help="only large shapes, 0.1 s each")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device: these checks need one", file=sys.stderr)
        return 2
    from zoo_kernels.registry import registry

    result: dict[str, Any] = {"schema": 1, "gpu": torch.cuda.get_device_name()}
    options.output.mkdir(parents=True, exist_ok=True)

    def keep(name: str, value: Any) -> None:
        result[name] = value
        (options.output / "gpu-checks.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    keep("compile", compiled(registry))
    keep("verify", verified(registry))
    keep("bench", benched(("large",) if options.quick else ("small", "large"), 0.1 if options.quick else 0.3))
    keep("sparse_against_dense", sparse_against_dense(0.1 if options.quick else 0.3))
    wrong = [row for row in result["compile"] if "error" in row] + [row for row in result["verify"] if not row["passed"]]
    print(f"{len(wrong)} problems; written to {options.output / 'gpu-checks.json'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
