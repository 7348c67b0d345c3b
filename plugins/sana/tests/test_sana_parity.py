"""Recorded cases: all public ones where they are, and a small copy that ships with the plugin."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo_core.parity import case_parameters, run_case

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("case", case_parameters("sana", local=DATA))
def test_parity(case: Path) -> None:
    result = run_case(case, plugin="sana")
    assert result.passed, result.report()
