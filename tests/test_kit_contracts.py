"""The kit's checks of task and kind contracts on made-up handles: a right one passes all of its group, each wrong one fails exactly its check."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zoo_core.errors import InputError
from zoo_core.interfaces import ImageResult, MemoryReport, SegmentationResult, TextResult, TokenPolicy
from zoo_core.specs import CacheSpec, ClaimSpec, EvaluatorSpec, RecipeSpec, SamplerSpec, TokenizerSpec, WeightsSpec
from zoo_core.testing.checks import all_checks
from zoo_core.testing.runner import run_one


class FakeSubject:
    """Stands for a plugin with one model and some specs."""

    def __init__(self, handle: Any = None, task: str = "", specs: Mapping[str, Sequence[Any]] | None = None) -> None:
        self._handle, self._task, self._specs = handle, task, specs or {}
        self.conformance = SimpleNamespace(tiny={}, expected_failures={})

    def small_models(self) -> list[str]:
        return ["m"] if self._handle is not None else []

    def task(self, name: str) -> str:
        return self._task

    def handle(self, name: str) -> Any:
        return self._handle

    def call(self, name: str) -> dict[str, Any]:
        return {}

    def specs(self, kind: str) -> list[Any]:
        return list(self._specs.get(kind, ()))


def outcome(group: str, subject: FakeSubject) -> tuple[set[str], set[str]]:
    """Names of passed and of failed checks of a group."""
    passed, failed = set(), []
    for check in all_checks():
        if check.name.startswith(group + "."):
            for result in run_one(subject, check, failed):  # type: ignore[arg-type]
                assert result.status != "skipped" or result.message.startswith("needs "), result
                if result.status == "failed":
                    failed.append(result.check)
                elif result.status == "passed":
                    passed.add(result.check)
    return passed, set(failed)


# -- pictures ----------------------------------------------------------------------------------------------------------------


class Painter:
    """A text-to-image model of three lines; every rule it keeps can be switched off."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def generate(
        self, prompt: Any, *, steps: int = 3, seed: int | None = None, generator: Any = None, height: int = 8, callback: Any = None, **options: Any
    ) -> Any:
        texts = [prompt] if isinstance(prompt, (str, int)) else list(prompt)
        if self.fault != "options" and (options or not texts or steps < 1 or height < 1 or not isinstance(texts[0], str) or (seed is not None and generator)):
            raise InputError("bad argument", fix="another one")
        for step in range(steps - (self.fault == "callback")):
            if callback:
                callback(step + 1, steps, {})
        images = []
        for index, text in enumerate(texts):
            number = (seed or 0) + (index if self.fault != "batch" else 7 * len(texts))
            if self.fault == "constant":
                number = 0
            if self.fault == "unseeded":
                number = int(torch.randint(1 << 30, ()))
            noise = np.random.default_rng([number, zlib.crc32(str(text).encode())])
            images.append(Image.fromarray(noise.integers(0, 255, (8, 8, 3), np.uint8)).convert("L" if self.fault == "grey" else "RGB"))
        return images if self.fault == "list" else ImageResult(images=images)


@pytest.mark.parametrize(
    ("fault", "check"),
    [("list", "result"), ("grey", "result"), ("callback", "result"), ("constant", "seed"), ("unseeded", "seed"), ("batch", "batch"), ("options", "options")],
)
def test_wrong_painters(fault: str, check: str) -> None:
    _, failed = outcome("generate", FakeSubject(Painter(fault), "text-to-image"))
    also = {"generate.batch"} if fault == "unseeded" else set()  # without a seed no picture can be drawn twice
    assert failed == {f"generate.{check}"} | also


def test_right_painter() -> None:
    passed, failed = outcome("generate", FakeSubject(Painter(), "text-to-image"))
    assert not failed and passed == {"generate.result", "generate.seed", "generate.batch", "generate.options"}


# -- language ----------------------------------------------------------------------------------------------------------------


class Writer:
    """A language model that continues with bytes computed from the prompt."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def generate(self, prompt: Any, *, max_new_tokens: int = 8, temperature: float = 0.0, top_p: float = 1.0, seed: int | None = None, **options: Any) -> Any:
        if self.fault != "options" and (
            options or max_new_tokens < 1 or temperature < 0 or not 0 < top_p <= 1 or not isinstance(prompt, (str, list)) or not prompt
        ):
            raise InputError("bad argument", fix="another one")
        prompts = [prompt] if isinstance(prompt, str) else prompt
        salt = len(prompts) if self.fault == "batch" else 0
        if temperature:
            salt += int(torch.randint(1 << 20, ())) if self.fault == "sampling" else 13 * (seed or 0)
        ids = [[97 + (zlib.crc32(text.encode()) + salt + i * i) % 26 for i in range(max_new_tokens + (self.fault == "long"))] for text in prompts]
        return TextResult(texts=["".join(map(chr, row)) for row in ids], token_ids=ids)

    def stream(self, prompt: str, **options: Any) -> Iterator[str]:
        text = self.generate(prompt, **options).texts[0]
        yield from (text[1:] if self.fault == "stream" else text)

    def loglikelihood(self, texts: Sequence[str], *, context: Sequence[str] | None = None) -> list[tuple[float, int]]:
        return [((1.0 if self.fault == "likelihood" else -1.0) * len(text), len(text)) for text in texts]


@pytest.mark.parametrize(
    ("fault", "check"),
    [("long", "generate"), ("batch", "batch"), ("sampling", "sampling"), ("stream", "stream"), ("likelihood", "likelihood"), ("options", "options")],
)
def test_wrong_writers(fault: str, check: str) -> None:
    assert outcome("language", FakeSubject(Writer(fault), "causal-lm"))[1] == {f"language.{check}"}


def test_right_writer() -> None:
    passed, failed = outcome("language", FakeSubject(Writer(), "causal-lm"))
    assert not failed and len(passed) == 6


# -- segmentation ------------------------------------------------------------------------------------------------------------


class Segmenter:
    classes = ("dark", "bright")

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.palette = [(0, 0, 0)] * (1 if fault == "palette" else 2)

    def segment(self, images: Any, **options: Any) -> SegmentationResult:
        pictures = [images] if isinstance(images, (Image.Image, str)) else images
        if self.fault != "inputs" and (options or not pictures or not isinstance(pictures, list) or isinstance(pictures[0], str)):
            raise InputError("bad argument", fix="another one")
        pictures = [picture for picture in pictures if isinstance(picture, Image.Image)] if isinstance(pictures, list) else []
        labels = [(np.asarray(picture.convert("L")) > 128 + 60 * (self.fault == "batch" and len(pictures) > 1)).astype(np.uint8) for picture in pictures]
        if self.fault == "transposed":
            labels = [label.T for label in labels]
        if self.fault == "classes":
            labels = [label + 2 for label in labels]
        return SegmentationResult(labels=labels)


@pytest.mark.parametrize(("fault", "check"), [("palette", "result"), ("transposed", "result"), ("classes", "result"), ("batch", "batch"), ("inputs", "inputs")])
def test_wrong_segmenters(fault: str, check: str) -> None:
    assert outcome("segmenter", FakeSubject(Segmenter(fault), "semantic-segmentation"))[1] == {f"segmenter.{check}"}


def test_right_segmenter() -> None:
    assert outcome("segmenter", FakeSubject(Segmenter(), "semantic-segmentation")) == ({"segmenter.result", "segmenter.batch", "segmenter.inputs"}, set())


# -- caches ------------------------------------------------------------------------------------------------------------------


@dataclass
class Layer:
    fault: str = ""
    kept: list[torch.Tensor] = field(default_factory=list)
    policies: tuple[TokenPolicy, ...] = (TokenPolicy(), TokenPolicy())
    length: int = 0

    def append(self, *tensors: torch.Tensor, commit: bool = True) -> Any:
        shown = tensors
        if commit or self.fault == "commit":
            self.kept.append(tensors[0])
            self.length += tensors[0].shape[-2] if self.fault != "append" else 1
        return shown

    def crop(self, length: int) -> None:
        self.length = length if self.fault != "crop" else self.length - length

    def reset(self) -> None:
        self.length = 0
        self.kept.clear()


@dataclass
class Cache:
    fault: str = ""

    def __post_init__(self) -> None:
        self.layers = [Layer(self.fault)]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.layers[layer_idx].length

    def reset(self) -> None:
        for layer in self.layers:
            layer.reset()

    def memory(self) -> MemoryReport:
        used = sum(tensor.nbytes for tensor in self.layers[0].kept)
        return MemoryReport(used=used, allocated=used // 2 if self.fault == "memory" else used)


def cache_factory(fault: str) -> str:
    globals()[f"make_{fault or 'right'}"] = lambda model, **options: Cache(fault)
    return f"{__name__}:make_{fault or 'right'}"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets are resolved by import; this file is not on the path under ``importlib`` mode."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or SimpleNamespace(**globals()))


@pytest.mark.parametrize("fault", ["", "append", "commit", "crop", "memory"])
def test_caches(fault: str, importable: None) -> None:
    subject = FakeSubject(Writer(), "causal-lm", {"caches": [CacheSpec(name="c", build=cache_factory(fault))]})
    passed, failed = outcome("cache", subject)
    assert failed == ({f"cache.{fault}"} if fault else set())
    assert fault or passed == {"cache.append", "cache.commit", "cache.crop", "cache.memory"}


# -- samplers ----------------------------------------------------------------------------------------------------------------


@dataclass
class Plan:
    evaluations: int
    fault: str

    def start(self, noise: torch.Tensor) -> torch.Tensor:
        return noise

    def model_input(self, x: torch.Tensor, i: int) -> torch.Tensor:
        return x

    def model_time(self, i: int) -> Any:
        return 1.0 if self.fault == "time" else torch.tensor(1.0)

    def needs_noise(self, i: int) -> bool:
        return False

    def advance(self, x: torch.Tensor, output: torch.Tensor, i: int, noise: torch.Tensor | None = None) -> torch.Tensor:
        return x - output + (torch.randn(()) if self.fault == "random" else 0) + (torch.tensor(float("nan")) if self.fault == "nan" else 0)

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        return x


@dataclass
class PlanMaker:
    fault: str

    def plan(self, steps: int, *, device: Any = None, start_at: float | None = None, **options: Any) -> Any:
        if self.fault != "inputs" and (steps < 1 or (start_at is not None and not 0 < start_at <= 1)):
            raise InputError("bad", fix="good")
        return Plan(max(1, steps), self.fault) if self.fault != "protocol" else object()

    def add_noise(self, data: torch.Tensor, noise: torch.Tensor, start_at: float) -> torch.Tensor:
        return data


def sampler_factory(fault: str) -> str:
    globals()[f"sampler_{fault or 'right'}"] = lambda **options: PlanMaker(fault)
    return f"{__name__}:sampler_{fault or 'right'}"


@pytest.mark.parametrize(("fault", "check"), [("", ""), ("protocol", "plan"), ("time", "plan"), ("random", "plan"), ("nan", "plan"), ("inputs", "inputs")])
def test_samplers(fault: str, check: str) -> None:
    subject = FakeSubject(specs={"samplers": [SamplerSpec(name="s", build=sampler_factory(fault))]})
    passed, failed = outcome("sampler", subject)
    assert failed == ({f"sampler.{check}"} if check else set())
    assert check or passed == {"sampler.plan", "sampler.inputs"}


# -- the rest ----------------------------------------------------------------------------------------------------------------


class Letters:
    vocab_size = 128

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode()


class Forgetful(Letters):
    def decode(self, ids: Sequence[int]) -> str:
        return ""


class Quiz:
    rows: Any = ({"id": "a", "text": "x"}, {"id": "b", "text": "y"}, {"id": "c", "text": "z"})

    def items(self, limit: int | None = None) -> Sequence[Mapping[str, Any]]:
        return self.rows[:limit]

    def generate(self, *_: Any, **__: Any) -> None: ...

    def score(self, *_: Any) -> None: ...

    def aggregate(self, *_: Any) -> None: ...


class Doubled(Quiz):
    rows = ({"id": "a"}, {"id": "a"})


class Tensors(Quiz):
    rows = ({"id": "a", "x": torch.zeros(1)},)


class Shuffled(Quiz):
    @property
    def rows(self) -> Any:  # type: ignore[override]
        return ({"id": str(np.random.default_rng().integers(1 << 60))},)


@dataclass
class Settings:
    steps: int = 1


@dataclass
class Untyped:
    model: Quiz = field(default_factory=Quiz)


@pytest.mark.parametrize(("name", "good"), [("Letters", True), ("Forgetful", False)])
def test_tokenizers(name: str, good: bool) -> None:
    subject = FakeSubject(specs={"tokenizers": [TokenizerSpec(name="t", build=f"{__name__}:{name}")]})
    assert bool(outcome("tokenizer", subject)[1]) is not good


@pytest.mark.parametrize(("name", "good"), [("Quiz", True), ("Doubled", False), ("Tensors", False), ("Shuffled", False)])
def test_evaluators(name: str, good: bool) -> None:
    subject = FakeSubject(specs={"evaluators": [EvaluatorSpec(name="e", task="causal-lm", build=f"{__name__}:{name}", metrics={"accuracy": "higher"})]})
    assert bool(outcome("evaluator", subject)[1]) is not good


def test_evaluators_declare_metrics() -> None:
    assert outcome("evaluator", FakeSubject(specs={"evaluators": [EvaluatorSpec(name="e", task="causal-lm", build=f"{__name__}:Quiz")]}))[1]


@pytest.mark.parametrize(("name", "good"), [("Settings", True), ("Untyped", False), ("Letters", False)])
def test_recipes(name: str, good: bool) -> None:
    subject = FakeSubject(specs={"recipes": [RecipeSpec(name="r", run=f"{__name__}:outcome", config_class=f"{__name__}:{name}")]})
    assert bool(outcome("recipe", subject)[1]) is not good


@pytest.mark.parametrize("missing", ["", "summary", "setting", "source", "needs"])
def test_claims(missing: str) -> None:
    values: dict[str, Any] = {"summary": "faster", "setting": "512 px", "source": "table 1", "paper_value": 2.0, "needs": ("cuda",)}
    values.pop(missing, None)
    assert bool(outcome("claim", FakeSubject(specs={"claims": [ClaimSpec(name="c", **values)]}))[1]) is bool(missing)


@pytest.mark.parametrize(("patterns", "good"), [(("^a",), True), ((), False), (("(",), False)])
def test_layouts(patterns: tuple[str, ...], good: bool) -> None:
    subject = FakeSubject(specs={"weights": [WeightsSpec(name="one", detect=("^b",)), WeightsSpec(name="two", detect=patterns)]})
    assert bool(outcome("layout", subject)[1]) is not good
