"""Metrics, statistics, prompt sets, image evaluators: against independent implementations."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zoo_core.errors import EvaluationError, InputError
from zoo_core.evaluation import run_evaluation
from zoo_core.evaluation.builtin import SPECS
from zoo_core.evaluation.features import feature_space
from zoo_core.evaluation.images import ImageFrechet, ImagePrompts
from zoo_core.evaluation.metrics import frechet_distance, psnr, ssim, to_uint8
from zoo_core.evaluation.prompts import load_prompts
from zoo_core.evaluation.reconstruction import Reconstruction
from zoo_core.evaluation.statistics import bootstrap
from zoo_core.interfaces.model import ImageResult, Model
from zoo_core.specs import ModelSpec, resolve


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_psnr_and_ssim_against_their_definitions() -> None:
    a = noise(2, 3, 24, 24)
    b = (a.int() + noise(2, 3, 24, 24, seed=1).int() % 9 - 4).clamp(0, 255).to(torch.uint8)
    for index, value in enumerate(psnr(a, b)):
        error = float((a[index].double() - b[index].double()).square().mean())
        assert value == pytest.approx(10 * math.log10(255**2 / error), abs=1e-3)
    assert psnr(a, a) == [100.0, 100.0] and ssim(a, a) == pytest.approx([1.0, 1.0])
    assert all(0.5 < value < 1.0 for value in ssim(a, b))
    with pytest.raises(InputError):
        psnr(a.float(), b.float())
    with pytest.raises(InputError, match="11 x 11"):
        ssim(a[..., :8], b[..., :8])


def test_quantisation_rule() -> None:
    values = torch.tensor([-1.5, -1.0, 0.0, 1.0, 2.0, -1.0 + 0.49 * 2 / 255, -1.0 + 0.51 * 2 / 255])
    assert to_uint8(values).tolist() == [0, 0, 128, 255, 255, 0, 1]


def test_frechet_distance_against_scipy_and_closed_form() -> None:
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(400, 6)), rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6)) + 0.3
    root = sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)).real
    wanted = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(np.cov(a, rowvar=False) + np.cov(b, rowvar=False) - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-8)
    assert abs(frechet_distance(a, a)) < 1e-8
    assert frechet_distance(a, a + 2.0) == pytest.approx(24.0)  # equal covariance: squared distance of the means


def test_only_inception_may_be_called_fid() -> None:
    assert feature_space("random-conv").metric == "fd-random-conv" and feature_space("pixels").metric == "fd-pixels"
    with pytest.raises(EvaluationError, match="local file"):
        feature_space("inception")
    with pytest.raises(EvaluationError, match="unknown"):
        feature_space("resnet")
    features = feature_space("random-conv").extract(noise(2, 3, 32, 32))
    assert features.shape == (2, 128) and torch.equal(features, feature_space("random-conv").extract(noise(2, 3, 32, 32)))


def test_bootstrap_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        interval = bootstrap(rng.normal(5.0, 2.0, 60).tolist(), resamples=400, seed=trial)
        hits += interval.low <= 5.0 <= interval.high
    assert 0.88 <= hits / 200 <= 0.99


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_bootstrap_stays_within_the_data(values: list[float]) -> None:
    interval = bootstrap(values, resamples=50)
    slack = 1e-6 * max(1.0, max(abs(v) for v in values))
    assert min(values) - slack <= interval.low <= interval.high <= max(values) + slack


def test_prompt_sets(tmp_path: Path) -> None:
    assert len(load_prompts(None)) == 8
    (tmp_path / "p.txt").write_text("# comment\na cat\n\n  a dog \u2028 with tail  \n", encoding="utf-8")
    assert [item["prompt"] for item in load_prompts(tmp_path / "p.txt")] == ["a cat", "a dog \u2028 with tail"]
    (tmp_path / "g.jsonl").write_text('{"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}\n')
    (item,) = load_prompts(tmp_path / "g.jsonl")
    assert item["id"] == "00000" and item["tag"] == "single_object"
    (tmp_path / "meta_data.json").write_text('{"abc1": {"category": "animals", "prompt": "a fox"}}')
    assert load_prompts(tmp_path) == [{"id": "abc1", "category": "animals", "prompt": "a fox"}]
    for name, text in (("e.txt", "\n"), ("b.jsonl", "{"), ("n.jsonl", '{"tag": 1}'), ("s.json", '"x"')):
        (tmp_path / name).write_text(text)
        with pytest.raises(EvaluationError):
            load_prompts(tmp_path / name)
    with pytest.raises(EvaluationError, match="does not exist"):
        load_prompts(tmp_path / "absent.txt")


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=200), suffix=st.sampled_from([".txt", ".json", ".jsonl"]))
def test_any_prompt_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str, suffix: str) -> None:
    path = tmp_path_factory.mktemp("prompts") / f"p{suffix}"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        items = load_prompts(path)
    except EvaluationError:
        return
    assert items and len({item["id"] for item in items}) == len(items) and all(item["prompt"].strip() for item in items)


class Painter(Model):
    """Text to image: a colour from the prompt plus seeded noise."""

    def generate(self, prompt: Any, *, generator: Any = None, height: int | None = None, **options: Any) -> ImageResult:
        side = height or 16
        images = []
        for text, g in zip(prompt, generator, strict=True):
            colour = torch.tensor([len(text) * 5 % 255, len(text) * 11 % 255, 128]).view(3, 1, 1)
            picture = (colour + torch.randint(-20, 20, (3, side, side), generator=g)).clamp(0, 255).to(torch.uint8)
            images.append(Image.fromarray(picture.permute(1, 2, 0).numpy()))
        return ImageResult(images, seconds={"denoise": 0.25 * len(images)})


class Blur(Model):
    """Autoencoder: halves and doubles the resolution."""

    def reconstruct(self, images: Any, **options: Any) -> ImageResult:
        small = [image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX) for image in images]
        return ImageResult([s.resize(i.size, Image.Resampling.BILINEAR) for s, i in zip(small, images, strict=True)])


def painter() -> Painter:
    return Painter(ModelSpec(name="painter", task="text-to-image", build="a:b"), {}, {})


def test_image_prompts_do_not_depend_on_batches(tmp_path: Path) -> None:
    results = []
    for batch in (1, 3):
        evaluator = ImagePrompts(batch=batch, images_per_prompt=2)
        results.append(run_evaluation(painter(), evaluator, output=tmp_path / str(batch), name="image-prompts"))
    for path in (tmp_path / "1" / "images").iterdir():
        assert path.read_bytes() == (tmp_path / "3" / "images" / path.name).read_bytes()
    assert len(list((tmp_path / "1" / "images").iterdir())) == 16
    assert results[0]["metrics"]["seconds-per-image"]["value"] == pytest.approx(0.25)
    assert "not a benchmark" in results[0]["notes"][0]


def test_geneval_layout(tmp_path: Path) -> None:
    (tmp_path / "g.jsonl").write_text('{"tag": "colors", "prompt": "a red bench"}\n{"tag": "counting", "prompt": "two benches"}\n')
    run_evaluation(painter(), ImagePrompts(str(tmp_path / "g.jsonl"), images_per_prompt=2, layout="geneval"), output=tmp_path / "run", name="x")
    folder = tmp_path / "run" / "geneval" / "00001"
    assert json.loads((folder / "metadata.jsonl").read_text())["tag"] == "counting"
    assert sorted(p.name for p in (folder / "samples").iterdir()) == ["0000.png", "0001.png"]


def test_frechet_evaluator_tells_near_from_far(tmp_path: Path) -> None:
    prompts = [item["prompt"] for item in load_prompts(None)]
    for name in ("near", "far"):
        (tmp_path / name).mkdir()
        for k in range(16):
            drawn = painter().generate([prompts[k % 8]], generator=[torch.Generator().manual_seed(100 + k)]).images[0]
            picture = drawn if name == "near" else Image.fromarray(noise(16, 16, 3, seed=k).numpy())
            picture.save(tmp_path / name / f"{k}.png")
    values = {}
    for name in ("near", "far"):
        evaluator = ImageFrechet(reference=str(tmp_path / name), features="pixels")
        result = run_evaluation(painter(), evaluator, output=tmp_path / f"run-{name}", name="image-fid")
        values[name] = result["metrics"]["fd-pixels"]["value"]
        assert "fid" not in result["metrics"] and any("singular" in note for note in result["notes"])
    assert 0 <= values["near"] < values["far"]


def test_reconstruction(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for k, size in enumerate(((40, 60), (60, 40), (50, 50))):
        Image.fromarray(noise(size[1], size[0], 3, seed=k).numpy()).resize(size).save(images / f"{k}.png")
    (images / "0.jpg").write_bytes((images / "0.png").read_bytes())  # the same stem must not overwrite
    model = Blur(ModelSpec(name="blur", task="image-autoencoder", build="a:b"), {}, {})
    result = run_evaluation(model, Reconstruction(str(images), size=32, batch=2, features="random-conv"), output=tmp_path / "run", name="image-reconstruction")
    assert result["samples"]["evaluated"] == 4
    assert 5 < result["metrics"]["psnr"]["value"] < 20 and result["metrics"]["psnr"]["low"] is not None
    assert result["metrics"]["rfd-random-conv"]["value"] > 0
    assert {Image.open(p).size for p in (tmp_path / "run" / "images").iterdir()} == {(32, 32)}
    with pytest.raises(EvaluationError, match="needs pictures"):
        Reconstruction()
    (images / "broken.png").write_bytes(b"no picture")
    with pytest.raises(EvaluationError, match=r"broken\.png cannot be read"):
        run_evaluation(model, Reconstruction(str(images), size=32), output=tmp_path / "run2", name="image-reconstruction")


def test_builtin_specs_resolve() -> None:
    for spec in SPECS:
        assert callable(resolve(spec.build)) and spec.metrics
