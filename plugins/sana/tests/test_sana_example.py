"""The example runs as a user would run it (tiny random transformer, the embedded autoencoder)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

EXAMPLE = Path(__file__).parents[3] / "examples" / "sana_grid.py"


@pytest.mark.skipif(not EXAMPLE.is_file(), reason="the plugin stands outside the repository")
def test_grid_example(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("sana_grid", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = module.main(["--random", "--output", str(tmp_path)])
    assert [path.name for path in written] == ["grid.png", "one-word.png", "walk.png"]
    with Image.open(written[0]) as page:
        assert page.size == (192, 192)


def test_claims_that_need_no_gpu_measure_something(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from zoo_sana import claims

    from zoo_core.claims import ClaimContext

    monkeypatch.setattr(claims, "SIDES", (128, 256, 512))
    context = ClaimContext(device=torch.device("cpu"))
    assert claims.token_saving(context)["value"] == 4.0
    result = claims.linear_attention(context)
    assert len(result["rows"]) == 3
    assert result["value"] > 0
