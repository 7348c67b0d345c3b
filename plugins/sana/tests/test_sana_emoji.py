"""The embedded model draws what is asked, through the door that users take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zoo_core.loading import load

pytest.importorskip("zoo_dc_ae", reason="the autoencoder of sana-emoji is a model of zoo-dc-ae")


def colour(picture: Any) -> np.ndarray:
    """Mean RGB of what is not background."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32).reshape(-1, 3)
    drawn = pixels[pixels.min(1) < 200]
    assert len(drawn) > 0.05 * len(pixels), "the picture is blank"
    return drawn.mean(0)


def test_colours_follow_the_words() -> None:
    model = load("sana-emoji", device="cpu")
    pictures = model.generate(["a red heart", "a green heart", "a blue heart"], seed=1).images
    assert [picture.size for picture in pictures] == [(128, 128)] * 3
    assert [int(colour(picture).argmax()) for picture in pictures] == [0, 1, 2]


def test_one_word_on_the_command_line_makes_a_picture(tmp_path: Path) -> None:
    file = tmp_path / "pizza.png"
    command = [sys.executable, "-m", "zoo_core.cli", "run", "sana-emoji", "a slice of pizza", "--output", str(file), "--seed", "1", "steps=8"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert f"wrote {file}" in done.stdout
    with Image.open(file) as picture:
        red, _, blue = colour(picture)
        assert red > 1.5 * blue  # cheese and tomato
