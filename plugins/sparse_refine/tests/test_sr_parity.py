"""Recorded reference cases: the local ones always, all public ones where the recorded data is present; and that a wrong network is noticed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from zoo_core.parity import case_parameters, run_case

DATA = Path(__file__).parent / "data"
ROWS = {"entropy-selector": 15, "gated-ensembler": 6, "sparse-conv-layout": 9, "baseline": 6, "refine-step-features": 80}


@pytest.mark.parametrize("case", case_parameters("sparse-refine", local=DATA))
def test_recorded_case(case: Path) -> None:
    result = run_case(case, plugin="sparse-refine")
    assert result.passed, result.report()
    assert len(result.rows) >= ROWS.get(result.kind, 6)


def _turned(tensors: dict[str, torch.Tensor]) -> None:
    """Rows and columns of every 3 x 3 kernel exchanged: the same shapes, plausible pictures, wrong numbers."""
    for key, value in tensors.items():
        if key.endswith(".kernel") and value.dim() == 3:
            tensors[key] = value.reshape(3, 3, *value.shape[1:]).transpose(0, 1).reshape(value.shape).contiguous()


def _bias(tensors: dict[str, torch.Tensor]) -> None:
    tensors["ensembler.fuser.2.bias"] = tensors["ensembler.fuser.2.bias"] + 0.01


@pytest.mark.parametrize(("change", "right"), [(_turned, "logits/i/mask"), (_bias, "logits/o/mask")])
def test_a_wrong_weight_is_noticed(tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None], right: str) -> None:
    folder = tmp_path / "case"
    shutil.copytree(DATA / "refine-step-features", folder)
    tensors = load_file(folder / "checkpoint.safetensors")
    change(tensors)
    (folder / "checkpoint.safetensors").unlink()
    save_file(tensors, folder / "checkpoint.safetensors")
    result = run_case(folder, plugin="sparse-refine")
    wrong = {row.check for row in result.rows if not row.passed}
    assert "out.logits/e/mask" in wrong and f"out.{right}" not in wrong


def test_the_bounds_of_the_reference_are_not_those_of_the_picture() -> None:
    """174 coarse points by the picture's size, 140 by the rule of the reference."""
    from zoo_sparse_refine.sparse.pyramid import build_pyramid

    coordinates = load_file(DATA / "sparse-conv-layout" / "io.safetensors")["coords"][:, :3].contiguous()
    counts = {rule: build_pyramid(coordinates, 2, size=(18, 26), images=2, bounds=rule)[1].count for rule in ("batch", "size")}
    assert counts == {"batch": 140, "size": 174}
