"""Recorded reference cases: the local ones always, all public ones where the recorded data is present."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo_core.parity import case_parameters, run_case

pytest.importorskip("zoo_core.loading")


@pytest.mark.parametrize("case", case_parameters("dc-ae", local=Path(__file__).parent / "data"))
def test_recorded_case(case: Path) -> None:
    result = run_case(case, plugin="dc-ae")
    assert result.passed, result.report()
    assert len(result.rows) >= 6


def test_a_wrong_weight_is_noticed(tmp_path: Path) -> None:
    """The comparison can fail: one changed tensor must turn the case red."""
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "case"
    shutil.copytree(Path(__file__).parent / "data" / "tiny-in-style", folder)
    tensors = load_file(folder / "checkpoint.safetensors")
    tensors["decoder.norm_out.bias"] += 0.01
    (folder / "checkpoint.safetensors").unlink()
    save_file(tensors, folder / "checkpoint.safetensors")
    result = run_case(folder, plugin="dc-ae")
    assert not result.passed
    assert {row.check for row in result.rows if not row.passed} >= {"out0.reconstruction", "tiled.decode_tiled"}
    assert all(row.passed for row in result.rows if "latent" in row.check)
