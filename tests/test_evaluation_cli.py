"""The commands parity, eval, claims, bench and train, run through typer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from safetensors.torch import save_file
from typer.testing import CliRunner

from zoo_core.cli import evaluate as commands
from zoo_core.cli.train import train
from zoo_core.errors import ConfigError, InputError, UnknownNameError
from zoo_core.interfaces.model import Model
from zoo_core.interfaces.weights import LoadReport
from zoo_core.specs import BenchmarkSpec, ClaimSpec, EvaluatorSpec, ModelSpec, ParitySpec, RecipeSpec, Spec

HERE = "zoo_cli_targets"
TARGETS = """
from dataclasses import dataclass
from zoo_core.interfaces import Sample
from zoo_core.parity import Check, Tolerance
from zoo_core.training import TrainConfig

def double(case):
    io = case.tensors()
    yield Check("out", io["in"] * case.meta.get("factor", 2), io["out"], Tolerance(std=1e-4))

class Digits:
    def __init__(self, n: int = 6, base: float = 0.5): self.n, self.base = n, base
    def items(self, limit=None): return [{"id": str(i)} for i in range(self.n)][:limit]
    def generate(self, model, items, folder, *, seed):
        for item in items: yield Sample(item["id"], item, {"v": int(item["id"]) * self.base + seed})
    def score(self, samples, folder):
        for s in samples: s.scores = {"v": s.outputs["v"]}
        return samples
    def aggregate(self, samples, folder): return {"v": sum(s.scores["v"] for s in samples) / len(samples)}

def measure(context): return {"value": 3.0, "note": "n"}
def bench(context): return [{"cell": "a", "ours_ms": 1.0, "other_ms": 2.0, "ratio": 2.0, "other": "x"}]

@dataclass(kw_only=True)
class Config(TrainConfig):
    width: int = 4

def recipe(config):
    return {"width": config.width, "lr": config.lr}
"""


class FakeRegistry:
    def __init__(self) -> None:
        self.specs: dict[str, dict[str, Spec]] = {
            "parity": {"double": ParitySpec(name="double", run=f"{HERE}:double")},
            "evaluators": {"digits": EvaluatorSpec(name="digits", task="vendor/x", build=f"{HERE}:Digits", metrics={"v": "higher"})},
            "claims": {
                "c-one": ClaimSpec(name="c-one", paper_value=2.5, unit="x", measure=f"{HERE}:measure"),
                "c-two": ClaimSpec(name="c-two", needs=("data:Nowhere",)),
            },
            "benchmarks": {"b-one": BenchmarkSpec(name="b-one", run=f"{HERE}:bench")},
            "recipes": {"r-one": RecipeSpec(name="r-one", run=f"{HERE}:recipe", config_class=f"{HERE}:Config")},
        }

    def names(self, kind: str) -> list[str]:
        return list(self.specs[kind])

    def get(self, kind: str, name: str, *, plugin: str | None = None) -> Spec:
        if name not in self.specs[kind]:
            raise UnknownNameError(f"{kind} {name!r} is unknown")
        return self.specs[kind][name]

    def plugin(self, name: str) -> None:
        return None


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    (tmp_path / f"{HERE}.py").write_text(TARGETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    registry = FakeRegistry()
    monkeypatch.setattr("zoo_core.registry.get_registry", lambda: registry)
    spec = ModelSpec(name="toy", task="vendor/x", build="a:b")
    monkeypatch.setattr("zoo_core.loading.load", lambda name, **options: Model(spec, options, {}, LoadReport(name="toy")))
    cli = typer.Typer()
    for function in (commands.parity, commands.claims, commands.bench, train):
        cli.command()(function)
    cli.add_typer(commands.eval_app, name="eval")
    return cli


def run(app: typer.Typer, *arguments: Any) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def case(folder: Path, factor: float = 2, kind: str = "double") -> Path:
    folder.mkdir(parents=True)
    (folder / "case.json").write_text(json.dumps({"kind": kind, "paper": "x", "factor": factor}))
    save_file({"in": torch.arange(4.0), "out": torch.arange(4.0) * 2}, folder / "io.safetensors")
    return folder


def test_parity_exit_codes_and_json(app: typer.Typer, tmp_path: Path) -> None:
    good, bad, unknown = case(tmp_path / "cases" / "good"), case(tmp_path / "bad", 2.1), case(tmp_path / "unknown", kind="triple")
    code, text = run(app, "parity", "x", good)
    assert code == 0 and "1 checks in 1 cases, 0 failed" in text and "pass" in text
    code, text = run(app, "parity", "x", good, bad)
    assert code == 1 and "FAIL" in text and "1 failed" in text
    code, text = run(app, "parity", "x", unknown, good)
    assert code == 2 and "no parity handler for kind 'triple'" in text and "pass" in text
    assert run(app, "parity", "x", tmp_path / "absent")[0] == 2
    code, text = run(app, "parity", "x", tmp_path / "cases", "--json")
    data = json.loads(text)
    assert code == 0 and data["passed"] and data["cases"][0]["rows"][0]["check"] == "out" and data["checks"] == 1


def test_eval_compare_report_repeat(app: typer.Typer, tmp_path: Path) -> None:
    code, text = run(app, "eval", "toy", "digits", "n=5", "base=2.0", "load.dtype=bfloat16", "--output", "a", "--seed", 1)
    assert code == 0 and "v ↑" in text
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert (
        result["metrics"]["v"]["value"] == 5.0
        and result["evaluator"]["options"] == {"n": 5, "base": 2.0}
        and result["model"]["config"] == {"dtype": "bfloat16"}
    )
    assert run(app, "eval", "toy", "digits", "n=5", "base=2.5", "--output", "b", "--seed", 1)[0] == 0
    code, text = run(app, "eval", "compare", "a", "b/result.json", "--json")
    row = json.loads(text)["rows"][0]
    assert row["method"] == "paired" and row["difference"] == 1.0
    assert "second is" in run(app, "eval", "compare", "a", "b")[1]
    assert run(app, "eval", "report", "a", "b", "-o", "r.html")[0] == 0 and (tmp_path / "r.html").exists()
    code, text = run(app, "eval", "--repeat", "a/result.json")
    assert code == 0 and "identical" in text
    changed = {**result, "metrics": {"v": {**result["metrics"]["v"], "value": 99.0, "low": 98.0, "high": 100.0}}}
    (tmp_path / "a" / "result.json").write_text(json.dumps(changed))
    code, text = run(app, "eval", "--repeat", "a", "--output", "c", "--json")
    assert code == 1 and json.loads(text)["rows"][0]["verdict"] == "differs"


def test_eval_mistakes(app: typer.Typer) -> None:
    with pytest.raises(InputError, match="key=value"):
        run(app, "eval", "toy", "digits", "n")
    with pytest.raises(InputError, match="needs a model"):
        run(app, "eval", "toy")
    with pytest.raises(Exception, match=r"unexpected keyword argument .nn."):
        run(app, "eval", "toy", "digits", "nn=3")
    with pytest.raises(UnknownNameError):
        run(app, "eval", "toy", "digit")


def test_claims_and_bench(app: typer.Typer, tmp_path: Path) -> None:
    code, text = run(app, "claims")
    assert code == 0 and "not run" in text and "needs data:Nowhere" in text
    code, text = run(app, "claims", "--run", "c-one", "--budget", 1, "--json")
    assert code == 0 and json.loads(text)[0]["value"] == 3.0
    assert json.loads((tmp_path / "runs/claims/c-one.json").read_text())["paper"] == 2.5
    assert "3 x" in run(app, "claims", "x")[1]
    assert run(app, "bench")[1].strip() == "b-one"
    code, text = run(app, "bench", "b-one", "--json")
    assert code == 0 and json.loads(text)["rows"][0]["ratio"] == 2.0 and (tmp_path / "runs/benchmarks/b-one.json").exists()


def test_train_checks_settings(app: typer.Typer, tmp_path: Path) -> None:
    assert run(app, "train")[1].strip() == "r-one"
    (tmp_path / "c.yaml").write_text("width: 8\nlr: 0.5\n")
    code, text = run(app, "train", "r-one", "--config", "c.yaml", "lr=1e-3", "--json")
    assert code == 0 and json.loads(text) == {"width": 8, "lr": 0.001}
    assert json.loads(run(app, "train", "r-one", "--show")[1])["width"] == 4
    for wrong in ("widht=3", "width=wide", "ema=2", "steps=0"):
        with pytest.raises(ConfigError):
            run(app, "train", "r-one", wrong)
