"""The ``Model`` handle and the task protocols.

A plugin's builder returns a :class:`Model` (usually a subclass) that also satisfies the protocol of its task.  Evaluators, the command line and the
server are written against the protocols only.  Torch is named in annotations and imported inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image

    from zoo_core.interfaces.weights import LoadReport
    from zoo_core.specs import ModelSpec

ProgressCallback = Callable[[int, int, Mapping[str, Any]], None]
"""``callback(step, total, state)`` after every step; raising stops the run.  ``state`` may hold live tensors: copy what you keep."""


class Model:
    """A loaded model: named components (``torch.nn.Module`` or other objects), its spec, resolved config and load report.

    Attributes:
        spec: The :class:`~zoo_core.specs.ModelSpec` it was built from.
        config: The resolved configuration (instance of the spec's config class, or a dict).
        components: Part name -> object; the main network is the first.
        report: What loading did (files, casts, kernel choices, times).

    A handle pickles by name, options and overrides, not by value: unpickling loads it again.
    """

    def __init__(self, spec: ModelSpec, config: Any, components: Mapping[str, Any], report: LoadReport | None = None) -> None:
        self.spec = spec
        self.config = config
        self.components = dict(components)
        self.report = report
        self.load_arguments: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def task(self) -> str:
        return self.spec.task

    @property
    def card(self) -> Mapping[str, Any]:
        """The catalogue entry."""
        return self.spec.card

    @property
    def module(self) -> torch.nn.Module:
        """The main network."""
        return next(iter(self.components.values()))

    def modules(self) -> Iterator[tuple[str, torch.nn.Module]]:
        """Component name and module, for every component that has parameters."""
        import torch

        for name, part in self.components.items():
            if isinstance(part, torch.nn.Module):
                yield name, part

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for _, module in self.modules() for p in module.parameters())

    def to(self, device: Any = None, dtype: Any = None) -> Model:
        """Move every component to ``device`` and/or cast the floating-point parameters to ``dtype`` (in place; returns self)."""
        for _, module in self.modules():
            module.to(device=device, dtype=dtype)
        return self

    def compile(self, **options: Any) -> Model:
        """``torch.compile`` the main network in place (lazily, at its first call)."""
        self.module.compile(**options)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        from zoo_core.loading import load

        arguments = dict(self.load_arguments)
        return _reload, (load, arguments.pop("name", self.name), arguments)

    def __repr__(self) -> str:
        parts = ", ".join(self.components)
        return f"<{type(self).__name__} {self.name!r} task={self.task} components=[{parts}] parameters={self.num_parameters:,}>"


def _reload(load: Callable[..., Model], name: str, arguments: Mapping[str, Any]) -> Model:
    return load(name, **arguments)


# -- results -----------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class ImageResult:
    """Pictures and how they were made.

    Attributes:
        images: RGB pictures, one per prompt (times ``images_per_prompt``).
        latents: Final latents [B, C, h, w] in the model's latent scale, if asked for.
        seed: Seed of the first picture (picture ``i`` used ``seed + i``), or None when generators were given.
        seconds: Wall time per phase (``text``, ``denoise``, ``decode``).
        info: Anything else worth recording (steps, guidance, size).
    """

    images: list[Image]
    latents: torch.Tensor | None = None
    seed: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class TextResult:
    """Generated text: ``texts`` one per prompt; ``token_ids`` the new ids; ``images`` where the model answers with pictures."""

    texts: list[str]
    token_ids: list[list[int]] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class SegmentationResult:
    """``labels`` uint8/int64 maps [H, W], one per picture; ``scores`` optional [classes, H, W]; ``info`` e.g. refined density."""

    labels: list[np.ndarray]
    scores: list[np.ndarray] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class MotionResult:
    """``trajectories`` [agents, modes, time, 2] in metres (scene frame) and ``probabilities`` [agents, modes]."""

    trajectories: np.ndarray
    probabilities: np.ndarray
    agent_ids: Sequence[int] = ()
    info: dict[str, Any] = field(default_factory=dict)


# -- task protocols ----------------------------------------------------------------------------------------------------------


@runtime_checkable
class TextToImage(Protocol):
    """Text in, pictures out."""

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        images_per_prompt: int = 1,
        seed: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        callback: ProgressCallback | None = None,
        progress: bool = False,
        **options: Any,
    ) -> ImageResult:
        """Draw pictures; ``height``/``width`` in pixels; ``seed`` and ``generator`` exclude each other."""
        ...


@runtime_checkable
class ClassToImage(Protocol):
    """Class indices in, pictures out."""

    def generate(
        self,
        labels: int | Sequence[int],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        callback: ProgressCallback | None = None,
        progress: bool = False,
        **options: Any,
    ) -> ImageResult: ...


@runtime_checkable
class ImageAutoencoder(Protocol):
    """Pictures to latents and back.

    ``encode`` takes [B, 3, H, W] in [-1, 1] and returns raw latents [B, C, H/ratio, W/ratio]; ``decode`` returns [B, 3, H, W], not clamped.
    Diffusion models see ``latent * scaling_factor``.
    """

    ratio: int
    latent_channels: int
    scaling_factor: float

    def encode(self, images: torch.Tensor, **options: Any) -> torch.Tensor: ...

    def decode(self, latents: torch.Tensor, **options: Any) -> torch.Tensor: ...

    def reconstruct(self, images: Image | Sequence[Image], **options: Any) -> ImageResult:
        """Pictures of any size through encoder and decoder; the result has the same sizes."""
        ...


@runtime_checkable
class CausalLM(Protocol):
    """Text (or a chat) in, text out."""

    def generate(
        self,
        prompt: str | Sequence[str] | Sequence[Mapping[str, str]],
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        seed: int | None = None,
        progress: bool = False,
        **options: Any,
    ) -> TextResult: ...

    def stream(self, prompt: str | Sequence[Mapping[str, str]], **options: Any) -> Iterator[str]:
        """Text pieces as they are made."""
        ...

    def loglikelihood(self, texts: Sequence[str], *, context: Sequence[str] | None = None) -> list[tuple[float, int]]:
        """Sum of log-probabilities (nats) and number of scored tokens per text."""
        ...


@runtime_checkable
class VisionLanguage(Protocol):
    """Pictures, video and text in; text (and, where the model can, pictures) out."""

    def generate(
        self,
        prompt: str | Sequence[Mapping[str, Any]],
        *,
        images: Sequence[Image | str] = (),
        videos: Sequence[str] = (),
        frames: int | None = None,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        seed: int | None = None,
        progress: bool = False,
        **options: Any,
    ) -> TextResult: ...


@runtime_checkable
class SemanticSegmenter(Protocol):
    """Picture in, class per pixel out."""

    classes: Sequence[str]
    palette: Sequence[tuple[int, int, int]]

    def segment(self, images: Image | str | Sequence[Image | str], **options: Any) -> SegmentationResult: ...


@runtime_checkable
class MotionPredictor(Protocol):
    """A traffic scene in, future trajectories out."""

    def predict(self, scene: Any, *, modes: int = 6, seed: int | None = None, **options: Any) -> MotionResult: ...


Images = Iterable["Image"]
