"""The worked example: conformance, the transform's properties and the numbers on its card."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

zoo_dct_codec = pytest.importorskip("zoo_dct_codec", reason="pip install -e examples/dct_codec")
CARD = json.loads(Path(zoo_dct_codec.__file__).with_name("registry.json").read_text())["models"]


def test_conformance() -> None:
    from zoo_core.testing import check_plugin

    results = check_plugin("dct-codec")
    wrong = [result for result in results if not result.ok]
    assert not wrong, "\n".join(f"{result.id}: {result.message}" for result in wrong)
    ran = {result.check for result in results if result.status == "passed"}
    assert {"build.parameters", "weights.round-trip", "autoencoder.shapes", "autoencoder.inputs"} <= ran


@pytest.mark.parametrize("name", CARD)
def test_embedded_file_is_the_formula(name: str) -> None:
    import torch

    import zoo

    stored, computed = zoo.load(name, device="cpu"), zoo.load(name, device="cpu", weights="random")
    assert torch.equal(stored.network.weight, computed.network.weight)


def test_transform_agrees_with_scipy() -> None:
    import torch

    fft = pytest.importorskip("scipy.fft")
    from zoo_dct_codec.network import cosines

    signal = torch.linspace(-1, 1, 8).double() ** 3
    assert np.allclose(cosines(8).double() @ signal, fft.dct(signal.numpy(), norm="ortho"), atol=1e-6)


def test_all_coefficients_give_the_picture_back() -> None:
    import torch

    import zoo

    codec = zoo.load("dct-f8c12", device="cpu", weights="random", overrides={"block": 4, "luma": 16, "chroma": 16})
    images = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.allclose(codec.decode(codec.encode(images)), images, atol=1e-5)


@pytest.mark.parametrize("name", CARD)
def test_quality_on_the_card(name: str) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    from PIL import Image

    import zoo

    picture = Image.open(Path(matplotlib.__file__).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg").convert("RGB")
    again = zoo.load(name, device="cpu").reconstruct(picture).images[0]
    error = np.mean((np.asarray(picture, float) - np.asarray(again, float)) ** 2)
    assert abs(10 * np.log10(255**2 / error) - CARD[name]["trained"]["quality"]["psnr_db"]) < 0.2


@pytest.mark.parametrize("overrides", [{"luma": 0}, {"luma": 65}, {"chroma": 0}])
def test_impossible_numbers_are_refused(overrides: dict[str, int]) -> None:
    import zoo
    from zoo_core.errors import ConfigError

    with pytest.raises(ConfigError, match="luma"):
        zoo.load("dct-f8c12", device="cpu", weights="random", overrides=overrides)
