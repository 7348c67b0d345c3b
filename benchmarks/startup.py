"""Start-up times: ``python benchmarks/startup.py`` writes ``benchmarks/results/startup.json``.

Every row is a fresh process, median of five (after one that warms the file cache): wall time, and processor time (user + system), which a busy machine does not
change.  The bare interpreter and ``import timm`` / ``import transformers`` (where they are installed) stand beside for comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ZOO = "import sys; from zoo_core.cli import main; sys.exit(main())"
ROWS: dict[str, tuple[list[str], dict[str, str], float | None]] = {
    "python (bare)": (["-c", "pass"], {}, None),
    "import zoo": (["-c", "import zoo"], {}, 30),
    "zoo --version": (["-c", ZOO, "--version"], {}, 60),
    "zoo list": (["-c", ZOO, "list"], {}, 150),
    "zoo list (no plugin allowed)": (["-c", ZOO, "list"], {"ZOO_PLUGINS": ""}, 150),
    "zoo list --json": (["-c", ZOO, "list", "--json"], {}, 150),
    "zoo info MODEL": (["-c", ZOO, "info", "dc-ae-f32c32-in-1.0"], {}, 120),
    "completion of zoo run": (["-c", ZOO, "__complete", "run", ""], {}, 80),
    "zoo --help (typer)": (["-c", ZOO, "--help"], {}, None),
    "import typer": (["-c", "import typer"], {}, None),
    "import torch": (["-c", "import torch"], {}, None),
    "import timm": (["-c", "import timm"], {}, None),
    "timm.list_models()": (["-c", "import timm; timm.list_models()"], {}, None),
    "import transformers": (["-c", "import transformers"], {}, None),
}
"""Label -> interpreter arguments, environment, budget in milliseconds (a wall time on an idle machine)."""


def measure(arguments: list[str], environment: dict[str, str], repeats: int) -> dict[str, float] | None:
    """Median wall and processor milliseconds of fresh processes; None when the command fails (package absent)."""
    wall, cpu = [], []
    for repeat in range(repeats + 1):
        begin = time.perf_counter()
        process = subprocess.Popen([sys.executable, *arguments], env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        elapsed = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            return None
        if repeat:
            wall.append(elapsed * 1e3)
            cpu.append((usage.ru_utime + usage.ru_stime) * 1e3)
    return {"wall_ms": round(statistics.median(wall), 1), "cpu_ms": round(statistics.median(cpu), 1), "best_wall_ms": round(min(wall), 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "startup.json")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for label, (arguments, environment, budget) in ROWS.items():
            found = measure(arguments, {"ZOO_CONFIG": f"{folder}/none.json", **environment}, options.repeats)
            if found is None:
                print(f"{label:32} not available", flush=True)
                continue
            rows.append({"cell": label, **found, "budget_ms": budget})
            over = "" if budget is None else f"  budget {budget:.0f}"
            print(f"{label:32} wall {found['wall_ms']:8.1f} ms  best {found['best_wall_ms']:8.1f} ms  cpu {found['cpu_ms']:8.1f} ms{over}", flush=True)
    from zoo_core.registry import get_registry

    registry = get_registry()
    record = {
        "schema": 1,
        "benchmark": "startup",
        "command": "python benchmarks/startup.py",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "python": platform.python_version(),
        "processor": _processor(),
        "load_average": os.getloadavg(),
        "plugins": len(registry.plugins()),
        "models": len(registry.models()),
        "repeats": options.repeats,
        "rows": rows,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {options.output.name}")
    return 0


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


if __name__ == "__main__":
    sys.exit(main())
