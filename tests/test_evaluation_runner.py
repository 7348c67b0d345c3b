"""Evaluation: resumable at any point, re-scored without the model, provenance, comparison, report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from zoo_core.errors import EvaluationError, UnsafePathError
from zoo_core.evaluation import compare_results, item_seed, read_result, run_evaluation, write_json, write_report
from zoo_core.evaluation.runner import read_samples
from zoo_core.interfaces import Sample
from zoo_core.interfaces.model import Model
from zoo_core.interfaces.weights import LoadReport
from zoo_core.specs import ModelSpec


def model(name: str = "adder") -> Model:
    spec = ModelSpec(name=name, task="vendor/sums", build="nowhere:build")
    return Model(spec, {"width": 3}, {}, LoadReport(name=name))


class Sums:
    """Items a + b; the model is right up to a seeded error."""

    def __init__(self, n: int = 20, fail_after: int | None = None, error: float = 0.0) -> None:
        self.n, self.fail_after, self.error = n, fail_after, error
        self.generated = self.scored = 0
        self.notes = ["toy"]

    def items(self, limit=None):
        return [{"id": f"sum-{i}", "a": i, "b": 2 * i} for i in range(self.n)][:limit]

    def generate(self, model, items, folder, *, seed):
        for item in items:
            if self.fail_after is not None and self.generated >= self.fail_after:
                raise KeyboardInterrupt
            self.generated += 1
            (folder / "out").mkdir(exist_ok=True)
            (folder / "out" / f"{item['id']}.txt").write_text("x")
            value = item["a"] + item["b"] + self.error + item_seed(seed, item["id"]) / 2**33
            yield Sample(item["id"], item, {"value": value, "text": "line\u2028separator"}, {"text": f"out/{item['id']}.txt"})

    def score(self, samples, folder):
        self.scored += len(samples)
        for sample in samples:
            sample.scores = {"error": abs(sample.outputs["value"] - sample.inputs["a"] - sample.inputs["b"])}
        return samples

    def aggregate(self, samples, folder):
        return {"error": sum(s.scores["error"] for s in samples) / len(samples), "worst": max(s.scores["error"] for s in samples)}


def run(folder: Path, evaluator: Sums | None = None, **options):
    return run_evaluation(model(), evaluator or Sums(), output=folder, name="sums", better={"error": "lower"}, **options)


def strip(result: dict) -> dict:
    return {key: value for key, value in result.items() if key not in ("seconds", "date")}


def test_interrupted_run_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", Sums(fail_after=7))
    assert not (tmp_path / "cut" / "result.json").exists()
    with (tmp_path / "cut" / "samples.jsonl").open("a") as file:
        file.write('{"id": "sum-7", "inpu')  # what kill -9 leaves
    rest = Sums()
    assert strip(run(tmp_path / "cut", rest)) == strip(whole)
    assert rest.generated == 13
    again = Sums()
    assert strip(run(tmp_path / "cut", again)) == strip(whole)
    assert again.generated == 0 and again.scored == 0


def test_rescoring_needs_no_model(tmp_path: Path) -> None:
    run(tmp_path)

    class Squared(Sums):
        def score(self, samples, folder):
            for sample in super().score(samples, folder):
                sample.scores["error"] **= 2
            return samples

    before = read_result(tmp_path)["metrics"]["error"]["value"]
    evaluator = Squared()
    after = run_evaluation("adder", evaluator, output=tmp_path, name="sums", rescore=True)  # by name: it could not be loaded
    assert evaluator.generated == 0 and evaluator.scored == 20
    assert after["metrics"]["error"]["value"] < before


def test_another_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(EvaluationError, match="holds another run") as error:
        run(tmp_path, seed=1)
    assert any("seed" in line for line in error.value.tried)
    run(tmp_path, seed=1, fresh=True)
    assert read_result(tmp_path)["seed"] == 1


def test_the_same_name_loaded_differently_is_another_run(tmp_path: Path) -> None:
    run(tmp_path)
    other = model()
    other.load_arguments = {"name": "adder", "weights": "random"}
    with pytest.raises(EvaluationError, match="holds another run"):
        run_evaluation(other, Sums(), output=tmp_path, name="sums")


def test_result_has_intervals_and_provenance(tmp_path: Path) -> None:
    result = run(tmp_path, seed=3)
    error = result["metrics"]["error"]
    assert error["low"] < error["value"] < error["high"] and error["n"] == 20 and error["better"] == "lower"
    assert result["metrics"]["worst"]["low"] is None  # no mean of scores: no interval claimed
    assert result["versions"]["torch"] and result["machine"]["cores"] and result["command"] and result["date"].startswith("20")
    assert result["model"]["name"] == "adder" and result["model"]["config"] == {"width": 3}
    assert len(result["samples"]["fingerprint"]) == 64 and result["notes"] == ["toy"]
    assert read_result(tmp_path / "result.json") == json.loads(json.dumps(result))
    limited = run(tmp_path / "limited", limit=5)
    assert limited["samples"]["evaluated"] == 5 and limited["samples"]["fingerprint"] != result["samples"]["fingerprint"]


def test_weights_are_named_with_their_digest(tmp_path: Path) -> None:
    from zoo_core.evaluation.provenance import describe_model, sha256
    from zoo_core.interfaces.weights import FileRecord

    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"abc")
    handle = model()
    assert handle.report is not None
    handle.report.files.append(FileRecord(str(file), "local", 3))
    (entry,) = describe_model(handle)["weights"]
    assert entry["sha256"] == sha256(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert str(tmp_path) not in json.dumps(entry)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": lambda s, limit=None: []}, "no items"),
        ({"items": lambda s, limit=None: [{"id": "a"}, {"id": "a"}]}, "used twice"),
        ({"generate": lambda s, m, items, f, *, seed: [Sample("other")]}, "not an open item"),
        ({"generate": lambda s, m, items, f, *, seed: []}, "left out"),
        ({"generate": lambda s, m, items, f, *, seed: [Sample(items[0]["id"], files={"x": "nope.png"})]}, "was not written"),
        ({"score": lambda s, samples, f: samples[1:]}, "changed the samples"),
    ],
)
def test_evaluators_that_break_the_contract(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        run(tmp_path, type("Bad", (Sums,), change)())


def test_files_may_not_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    bad = type("Bad", (Sums,), {"generate": lambda s, m, items, f, *, seed: [Sample(items[0]["id"], files={"x": "../secret"})]})()
    with pytest.raises(UnsafePathError):
        run(tmp_path / "run", bad)


def test_wrong_results_are_refused(tmp_path: Path) -> None:
    for text, message in (
        ("{", "cannot be read"),
        ("[]", "not an evaluation"),
        ('{"kind": "evaluation", "schema": 99}', "schema 99"),
        ('{"kind": "evaluation", "schema": 1}', "lacks"),
    ):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(EvaluationError, match=message):
            read_result(tmp_path / "r.json")
    with pytest.raises(EvaluationError, match="does not exist"):
        read_result(tmp_path / "absent.json")


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError):
        write_json(path, {"x": float("nan")})
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    assert json.loads(path.read_text()) == {"x": 1} and list(tmp_path.iterdir()) == [path]


def test_comparison_is_paired_where_ids_match(tmp_path: Path) -> None:
    a, b, other = run(tmp_path / "a"), run(tmp_path / "b", Sums(error=-0.01)), run(tmp_path / "c", Sums(n=12))
    (row,) = [r for r in compare_results(a, b)["rows"] if r["metric"] == "error"]
    assert row["method"] == "paired" and row["n"] == 20
    # errors lie within 0 .. 0.5: unpaired a shift of 0.01 is invisible, paired it is exact but for the items whose sign turns
    assert row["low"] <= row["difference"] <= row["high"] and row["high"] - row["low"] < 0.02
    assert row["verdict"] == "better"
    same = compare_results(a, a)
    assert [r["verdict"] for r in same["rows"]] == ["equal", "equal"] and not same["warnings"]
    unlike = compare_results(a, other)
    assert unlike["rows"][0]["method"] == "unpaired" and "data differs" in unlike["warnings"]


SCRIPT = """
    import sys, time
    sys.path.insert(0, sys.argv[2])
    from test_evaluation_runner import Sums, model
    from zoo_core.evaluation import run_evaluation
    class Slow(Sums):
        def generate(self, *args, **kw):
            for sample in super().generate(*args, **kw):
                time.sleep(0.02)
                yield sample
    try:
        run_evaluation(model(), Slow(n=2000), output=sys.argv[1], name="sums")
    except KeyboardInterrupt:
        raise SystemExit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_killed_at_any_point_leaves_no_corrupt_result(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path), str(Path(__file__).parent)], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    file = tmp_path / "samples.jsonl"
    for _ in range(600):
        if file.exists() and file.read_bytes().count(b"\n") > 3:
            break
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(30) == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert not (tmp_path / "result.json").exists() and not list(tmp_path.glob(".*.part"))
    done = len(read_samples(tmp_path))
    assert done > 3
    rest = Sums(n=2000)
    result = run(tmp_path, rest)
    assert result["samples"]["evaluated"] == 2000 and rest.generated == 2000 - done


def test_report_is_self_contained_and_escapes(tmp_path: Path) -> None:
    from PIL import Image

    class Drawn(Sums):
        def generate(self, model, items, folder, *, seed):
            for item in items:
                Image.new("RGB", (40, 20), (item["a"], 0, 0)).save(folder / f"{item['id']}.png")
                yield Sample(item["id"], {**item, "prompt": "<script>alert(1)</script> | x"}, {"value": item["a"] + item["b"]}, {"image": f"{item['id']}.png"})

    run(tmp_path / "run", Drawn(n=6))
    page = write_report([tmp_path / "run"], tmp_path / "report.html", pictures=4).read_text()
    assert page.count("data:image/png;base64,") == 4 and "<script>" not in page and "&lt;script&gt;" in page
    assert "http://" not in page and "https://" not in page and str(tmp_path) not in page.replace("output", "")
    text = write_report([tmp_path / "run"], tmp_path / "report.md").read_text()
    assert "| adder | sums | error ↓ |" in text and (tmp_path / "report-0.jpg").exists() and "<script>" not in text
    with pytest.raises(EvaluationError, match="format"):
        write_report([tmp_path / "run"], tmp_path / "report.pdf")
