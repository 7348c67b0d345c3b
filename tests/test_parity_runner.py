"""The parity runner: what passes, what fails, what is unusable."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from zoo_core.errors import ParityError
from zoo_core.parity import Check, ParityCase, Tolerance, compare, find_cases, run_case


@pytest.fixture
def case(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "case.json").write_text(json.dumps({"schema": 1, "paper": "none", "kind": "sum"}))
    save_file({"in": torch.arange(6.0).reshape(2, 3), "out": torch.arange(6.0).reshape(2, 3).sum(1)}, folder / "io.safetensors")
    return folder


def test_passing_case_reports_error_in_units_of_the_deviation(case: Path) -> None:
    def handler(c: ParityCase):
        io = c.tensors()
        yield Check("out", io["in"].sum(1) + 1e-4, io["out"], Tolerance(std=1e-3))

    result = run_case(case, handler)
    assert result.passed and result.kind == "sum"
    row = result.rows[0]
    assert row.error == pytest.approx(1e-4, rel=0.05)
    assert row.error_std == pytest.approx(1e-4 / 4.5, rel=0.05)  # values 3 and 12: population deviation 4.5


@pytest.mark.parametrize(
    ("actual", "expected", "tolerance", "passes"),
    [
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.1]), Tolerance(abs=0.11), True),
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.1]), Tolerance(abs=0.09), False),
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.1]), Tolerance(rel=0.05), True),
        (torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.nan]), Tolerance(abs=1.0), False),
        (torch.tensor([1.0, math.nan]), torch.tensor([1.0, 2.0]), Tolerance(abs=1.0), False),
        (torch.tensor([1.0, math.inf]), torch.tensor([1.0, math.inf]), Tolerance(abs=0.1), True),
        (torch.tensor([1.0, math.inf]), torch.tensor([1.0, -math.inf]), Tolerance(std=0.1), False),
        (torch.tensor([1.0, 5.0]), torch.tensor([1.0, math.inf]), Tolerance(rel=0.1), False),
        (torch.ones(3, 2), torch.ones(2, 3), Tolerance(abs=1.0), False),
        (torch.ones(3).half(), torch.ones(3), Tolerance(abs=1.0), False),
        (torch.full((4,), 2.0), torch.full((4,), 2.0001), Tolerance(std=1e-3), True),
        (torch.tensor([2**53 + 1]), torch.tensor([2**53]), Tolerance(exact=True), False),
        (torch.tensor([True, False]), torch.tensor([True, True]), Tolerance(exact=True), False),
        (np.array([1, 2]), [1, 2], Tolerance(exact=True), True),
        ([1.5, 2], [1.5, 2.0], Tolerance(exact=True), True),
        ("text", "text", Tolerance(exact=True), True),
        ("text", "other", Tolerance(abs=9), False),
        ({"a": [1]}, {"a": [1]}, Tolerance(exact=True), True),
        (torch.zeros(0, 3), torch.zeros(0, 3), Tolerance(exact=True), True),
        (torch.tensor([1 + 1j]), torch.tensor([1 + 1.5j]), Tolerance(abs=0.4), False),
    ],
)
def test_compare(actual, expected, tolerance, passes) -> None:
    row = compare(Check("x", actual, expected, tolerance))
    assert row.passed is passes
    assert passes or row.note


def test_any_dtype_is_opt_in() -> None:
    assert compare(Check("x", torch.ones(3).half(), torch.ones(3), Tolerance(abs=0.1), any_dtype=True)).passed


def test_rows_become_valid_json(case: Path) -> None:
    result = run_case(case, lambda c: [Check("x", torch.tensor(math.nan), torch.tensor(1.0), Tolerance(abs=1))])
    assert not result.passed
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["rows"][0]["error"] is None
    assert "NaN" in result.report()


def test_an_exception_in_the_handler_is_a_failure(case: Path) -> None:
    def handler(c: ParityCase):
        yield Check("fine", 1, 1)
        raise ValueError("boom")

    result = run_case(case, handler)
    assert [row.passed for row in result.rows] == [True, False]
    assert "ValueError: boom (test_parity_runner.py:" in result.rows[1].note


def test_a_handler_that_checks_nothing_fails(case: Path) -> None:
    result = run_case(case, lambda c: [])
    assert not result.passed and "nothing" in result.rows[0].note


def test_unusable_cases(case: Path, tmp_path: Path) -> None:
    assert "does not exist" in run_case(tmp_path / "absent", lambda c: []).unusable
    assert "checkpoint.safetensors is missing" in run_case(case, lambda c: [Check("x", c.file("checkpoint.safetensors"), 1)]).unusable
    (case / "io.safetensors").write_bytes(b"<html>not found</html>")
    assert "not a safetensors file" in run_case(case, lambda c: [Check("x", c.tensors(), 1)]).unusable
    (case / "case.json").write_text("{")
    assert "not valid JSON" in run_case(case, lambda c: []).unusable
    (case / "case.json").write_text("{}")
    assert "kind" in run_case(case, lambda c: []).unusable


def test_names_may_not_leave_the_case(case: Path) -> None:
    for name in ("../tiny/case.json", "/etc/hostname"):
        with pytest.raises(ParityError, match="leaves the folder"):
            ParityCase(case).file(name)


def test_tolerance_must_say_something() -> None:
    for arguments in ({}, {"exact": True, "abs": 1.0}, {"abs": -1.0}, {"std": math.nan}):
        with pytest.raises(ValueError):
            Tolerance(**arguments)


def test_folder_of_cases(case: Path, tmp_path: Path) -> None:
    assert find_cases(tmp_path) == [case]
    assert find_cases(case) == [case]
    assert find_cases(tmp_path / "absent") == [tmp_path / "absent"]
