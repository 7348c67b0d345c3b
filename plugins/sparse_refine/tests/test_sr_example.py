"""The example runs as a user would run it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

EXAMPLE = Path(__file__).parents[3] / "examples" / "sparse_refine_streets.py"


@pytest.mark.skipif(not EXAMPLE.is_file(), reason="the plugin stands outside the repository")
def test_streets_example(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("sparse_refine_streets", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sheet, own = tmp_path / "sheet.png", tmp_path / "own.png"
    small = ["--random", "--height", "128", "--width", "256", "--share", "0.1", "--output", str(sheet)]
    lines = module.main([*small, "--scenes", "2"])
    assert [round(line["refined_share"], 2) for line in lines] == [0.1, 0.1]
    assert all(0 <= line["dense_accuracy"] <= 1 and line["refined_ms"] > 0 for line in lines)
    assert Image.open(sheet).width == 4 * 480
    Image.new("RGB", (200, 100), "grey").save(own)
    lines = module.main([*small, "--images", str(own)])
    assert "dense_accuracy" not in lines[0]
    assert Image.open(sheet).width == 3 * 480
