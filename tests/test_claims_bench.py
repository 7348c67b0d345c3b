"""Claims ledger and benchmark harness."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from zoo_core import claims as ledger
from zoo_core.bench import BenchContext, peak_bytes, peak_in_child, run_benchmark, time_interleaved
from zoo_core.errors import EvaluationError, InputError, UnknownNameError
from zoo_core.specs import BenchmarkSpec, ClaimSpec

HERE = "zoo_claim_targets"


def targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{HERE}.py").write_text(
        "from zoo_core.errors import InputError\n"
        "import torch\n"
        "def speedup(context):\n"
        "    context.log('working')\n"
        "    (context.folder / 'trace.txt').write_text('x')\n"
        "    return {'value': 1.9, 'note': f'seed {context.seed}', 'rows': [{'t': torch.tensor(2.0)}], 'setting': {'budget': context.seconds}}\n"
        "def broken(context):\n    raise InputError('no pictures', fix='bring some')\n"
        "def bug(context):\n    raise KeyError('oops')\n"
        "def bench(context):\n"
        "    x = torch.randn(64, 64)\n"
        "    t = context.time({'ours': lambda: x @ x, 'other': lambda: (x @ x, x @ x, x @ x, x @ x)})\n"
        "    return [context.row('square', t, other='four times')]\n"
        "def empty(context):\n    return []\n"
        "def stop(context):\n    raise KeyboardInterrupt\n"
        "def big(n):\n    return lambda: torch.ones(n).sum()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture(autouse=True)
def _targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    targets(tmp_path, monkeypatch)


def claim(name: str = "x-speedup", **fields: Any) -> ClaimSpec:
    return ClaimSpec(**({"name": name, "paper_value": 2.0, "unit": "x", "measure": f"{HERE}:speedup"} | fields))


def test_measure_records_value_note_setting_and_machine(tmp_path: Path) -> None:
    said: list[str] = []
    record = ledger.measure(claim(scaled="CPU"), folder=tmp_path / "r", device=torch.device("cpu"), seconds=5, seed=3, log=said.append)
    stored = json.loads((tmp_path / "r" / "x-speedup.json").read_text())
    assert stored == record and stored["value"] == 1.9 and stored["status"] == "scaled" and stored["note"] == "seed 3"
    assert stored["rows"] == [{"t": 2.0}] and stored["setting"] == {"budget": 5} and stored["machine"]["cores"] and said == ["working"]
    (row,) = ledger.table([claim(scaled="CPU")], tmp_path / "r")
    assert row.value == 1.9 and row.paper == 2.0 and row.status == "scaled" and row.holds is None


@pytest.mark.parametrize(("tolerance", "higher", "holds"), [(0.2, True, True), (0.05, True, False), (0.0, False, True), (None, True, None)])
def test_tolerance(tmp_path: Path, tolerance: float | None, higher: bool, holds: bool | None) -> None:
    spec = claim(tolerance=tolerance, higher_is_better=higher)
    assert ledger.measure(spec, folder=tmp_path / "r")["holds"] is holds


def test_statuses_say_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "Here").mkdir(parents=True)
    specs = [
        claim("a", needs=("data:ImageNet", "package:no_such_package")),
        claim("b", needs=("data:Here", "package:torch")),
        claim("c", measure=None),
        claim("d", needs=("data:..",)),
        claim("e", needs=("a cluster",)),
    ]
    rows = ledger.table(specs, tmp_path / "none")
    assert [row.status for row in rows] == ["needs data:ImageNet, package:no_such_package", "not run", "not checkable", "needs data:..", "needs a cluster"]
    assert ledger.measure(specs[0], folder=tmp_path / "none")["status"].startswith("needs") and not (tmp_path / "none").exists()
    with pytest.raises(InputError, match="ImageNet"):
        ledger.ClaimContext(torch.device("cpu")).data("ImageNet")


def test_failures_are_recorded_but_not_stored_and_bugs_are_loud(tmp_path: Path) -> None:
    record = ledger.measure(claim(measure=f"{HERE}:broken"), folder=tmp_path / "r")
    assert record["status"] == "failed" and "no pictures" in record["note"] and not list((tmp_path / "r").iterdir())
    with pytest.raises(KeyError):
        ledger.measure(claim(measure=f"{HERE}:bug"), folder=tmp_path / "r")


def test_damaged_result_files_count_as_absent(tmp_path: Path) -> None:
    (tmp_path / "x-speedup.json").write_text('{"kind": "claim", "schema"')
    assert ledger.table([claim()], tmp_path)[0].status == "not run"


def test_selection_suggests() -> None:
    with pytest.raises(UnknownNameError, match="x-sped") as error:
        ledger.select([claim()], ["x-speduup"])
    assert "x-speedup" in str(error.value)


def test_claims_come_from_the_registry_and_survive_a_broken_plugin() -> None:
    def get(kind: str, name: str, plugin: str | None = None) -> ClaimSpec:
        if name == "bad":
            raise EvaluationError("broken plugin")
        return claim(name)

    registry = SimpleNamespace(names=lambda kind: ["a", "bad", "b"], get=get, plugin=lambda name: None)
    assert [spec.name for spec in ledger.claims(registry=registry)] == ["a", "b"]
    with pytest.raises(EvaluationError):
        ledger.claims("x", registry=registry)


def test_timing_is_interleaved_and_ordered(tmp_path: Path) -> None:
    order: list[str] = []

    def work(name: str, seconds: float):
        def call() -> None:
            order.append(name)
            time.sleep(seconds)

        return call

    times = time_interleaved({"slow": work("slow", 0.02), "fast": work("fast", 0.002)}, repeats=4, warmup=1)
    assert order == ["slow", "fast", "slow", "fast", "fast", "slow", "slow", "fast", "fast", "slow"]
    assert 18 < times["slow"].median_ms < 60 and times["fast"].median_ms < times["slow"].median_ms and times["slow"].n == 4
    short = time_interleaved({"slow": work("slow", 0.02)}, repeats=1000, seconds=0.05)
    assert 3 <= short["slow"].n < 10


def test_benchmark_writes_its_result(tmp_path: Path) -> None:
    record = run_benchmark(BenchmarkSpec(name="squares", run=f"{HERE}:bench", against="four squares"), folder=tmp_path / "r", device=torch.device("cpu"))
    assert json.loads((tmp_path / "r" / "squares.json").read_text()) == record
    (row,) = record["rows"]
    assert {"cell", "ours_ms", "other_ms", "ratio", "other"} <= row.keys() and row["ratio"] == pytest.approx(row["other_ms"] / row["ours_ms"])
    assert row["ratio"] > 1.2
    with pytest.raises(EvaluationError, match="0 rows"):
        run_benchmark(BenchmarkSpec(name="empty", run=f"{HERE}:empty"), folder=tmp_path / "r")
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(BenchmarkSpec(name="squares", run=f"{HERE}:stop"), folder=tmp_path / "r")
    assert json.loads((tmp_path / "r" / "squares.json").read_text()) == record  # the old result stands


def test_budget_runs_down() -> None:
    context = BenchContext(torch.device("cpu"), seconds=0.01)
    time.sleep(0.02)
    assert context.left == 0.0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resident peaks need Linux")
def test_peak_memory_sees_a_tensor() -> None:
    wanted = 64 * 2**20
    value = peak_bytes(lambda: torch.ones(wanted // 4).sum())
    child = peak_in_child(f"{HERE}:big", {"n": wanted // 4})
    assert value is not None and child is not None
    assert 0.8 * wanted < child < 1.6 * wanted
    with pytest.raises(EvaluationError, match="failed"):
        peak_in_child(f"{HERE}:absent")
