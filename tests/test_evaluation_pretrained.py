"""Metrics that use a network, with random weights in the published file formats: against independent computations."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image

from zoo_core.errors import EvaluationError
from zoo_core.evaluation import run_evaluation
from zoo_core.evaluation.class_images import ClassFrechet
from zoo_core.evaluation.features import feature_space
from zoo_core.evaluation.images import ImagePrompts
from zoo_core.evaluation.metrics import frechet_distance
from zoo_core.interfaces.model import ImageResult, Model
from zoo_core.specs import ModelSpec


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in torch-fidelity's format with random weights."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *a, **k: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    torch.save(network.state_dict(), path)
    return path


def noise(count: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 40, 40), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.mark.slow
def test_frechet_distance_in_inception_space_equals_torchmetrics(inception: Path) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    space = feature_space("inception", str(inception))
    assert space.metric == "fd-inception-other"  # not the published weights: must not be called FID

    class First(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return space.extract(images)[:, :64]

    a, b = noise(6, 0), noise(5, 1)
    metric = FrechetInceptionDistance(feature=First(), normalize=False, input_img_size=(3, 40, 40))
    metric.set_dtype(torch.float64)
    metric.update(a, real=True)
    metric.update(b, real=False)
    assert frechet_distance(First()(a).numpy(), First()(b).numpy()) == pytest.approx(float(metric.compute()), rel=1e-3, abs=1e-5)


def test_a_weights_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"x": Evil()}))
    with pytest.raises(EvaluationError, match="does not hold Inception weights"):
        feature_space("inception", str(tmp_path / "evil.pth"))
    assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP with random weights in transformers' layout."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {
        **size,
        "vocab_size": len(tokens),
        "max_position_embeddings": 20,
        "bos_token_id": len(tokens) - 2,
        "eos_token_id": len(tokens) - 1,
        "pad_token_id": len(tokens) - 1,
    }
    config = transformers.CLIPConfig(text_config=text, vision_config={**size, "image_size": 32, "patch_size": 8}, projection_dim=16)
    transformers.CLIPModel(config).save_pretrained(folder)
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=20)
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    transformers.CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder


class Noise(Model):
    def generate(self, prompt, *, generator=None, seed=None, **options):
        made = generator or [torch.Generator().manual_seed(seed)]
        return ImageResult([Image.fromarray(torch.randint(0, 256, (40, 40, 3), generator=g, dtype=torch.uint8).numpy()) for g in made])


@pytest.mark.slow
def test_clip_score_by_its_definition(clip: Path, tmp_path: Path) -> None:
    """100 x cosine of the projected embeddings, at least 0 (torchmetrics 1.9 cannot be asked: it does not run with transformers 5)."""
    from transformers import CLIPModel, CLIPProcessor

    prompts = ["a cat", "a much longer text about a dog and many more words than the model can read at once"]
    (tmp_path / "p.txt").write_text("\n".join(prompts))
    model = Noise(ModelSpec(name="noise", task="text-to-image", build="a:b"), {}, {})
    result = run_evaluation(model, ImagePrompts(str(tmp_path / "p.txt"), clip=str(clip)), output=tmp_path / "run", name="image-prompts")
    scores = result["per_sample"]["scores"]["clip-score"]
    network, processor = CLIPModel.from_pretrained(clip).eval(), CLIPProcessor.from_pretrained(clip)
    for index, prompt in enumerate(prompts):
        picture = processor.image_processor(Image.open(tmp_path / "run" / "images" / f"{index:05d}-0.png"), return_tensors="pt")["pixel_values"]
        tokens = processor.tokenizer(prompt, truncation=True, return_tensors="pt")
        with torch.no_grad():
            a = network.visual_projection(network.vision_model(picture).pooler_output)[0]
            b = network.text_projection(network.text_model(**tokens).pooler_output)[0]
        cosine = float(a @ b / (a.norm() * b.norm()))
        assert scores[index] == pytest.approx(max(0.0, 100 * cosine), abs=1e-3)
    assert max(scores) > 0  # both zero would prove nothing
    with pytest.raises(EvaluationError, match="no such folder"):
        ImagePrompts(clip=str(tmp_path / "absent"))


def test_class_evaluator(tmp_path: Path) -> None:
    model = Noise(ModelSpec(name="noise", task="class-to-image", build="a:b"), {}, {})
    (tmp_path / "ref").mkdir()
    for index in range(4):
        Image.fromarray(noise(1, index)[0].permute(1, 2, 0).numpy()).save(tmp_path / "ref" / f"{index}.png")
    evaluator = ClassFrechet(samples=5, classes=3, reference=str(tmp_path / "ref"), features="pixels")
    assert [item["label"] for item in evaluator.items()] == [0, 1, 2, 0, 1]
    result = run_evaluation(model, evaluator, output=tmp_path / "run", name="class-fid")
    assert result["metrics"]["fd-pixels"]["value"] > 0 and result["metrics"]["fd-pixels"]["better"] == "lower"
