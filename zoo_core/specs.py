# ruff: noqa: RUF009 - target_field() is dataclasses.field()
"""Frozen records that plugins register.

A *target* is a string ``"package.module:attribute"``: nothing is imported until it is used.  Specs hold data and targets only, so a
plugin's entry-point module stays free of torch.  Every spec validates itself; :class:`~zoo_core.errors.SpecError` names the spec, the field and
the fix (the registry adds the plugin).

Two sources feed the registry: the plugin's ``registry.yaml`` fragment (models and the *names* of everything else; read without importing
the plugin) and the plugin's hooks (see :mod:`zoo_core.hookspecs`; called when one of its things is needed).
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from zoo_core.errors import SpecError

API_VERSION = 1
"""Version of the plugin API: what hooks exist and what their specs mean."""

Target = str
"""``"package.module:attribute"``."""

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?\Z")
PATH_NAME = re.compile(rf"(?:{NAME.pattern.removesuffix(chr(92) + 'Z')}/)?{NAME.pattern}")
"""Recipes may be ``"family/recipe"``."""
TARGET = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*\Z")

TASKS = {
    "text-to-image": "TextToImage",
    "class-to-image": "ClassToImage",
    "image-autoencoder": "ImageAutoencoder",
    "causal-lm": "CausalLM",
    "vision-language": "VisionLanguage",
    "semantic-segmentation": "SemanticSegmenter",
    "motion-prediction": "MotionPredictor",
}
"""Task name -> protocol class in :mod:`zoo_core.interfaces.model`."""

STATUSES = ("embedded", "published", "config-only")


def resolve(target: Target) -> Any:
    """Import and return what ``"package.module:attribute"`` names.

    >>> resolve("math:sqrt")(4.0)
    2.0
    """
    module, _, path = target.partition(":")
    value: Any = importlib.import_module(module)
    for part in path.split("."):
        value = getattr(value, part)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Common part: a unique lower-case ``name`` within its kind, and one line of ``summary``."""

    name: str
    summary: str = ""

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Raise :class:`SpecError` when a field is not valid."""
        pattern = PATH_NAME if isinstance(self, RecipeSpec) else NAME
        self._require(bool(pattern.match(self.name)), "name", "lower-case letters, digits, '.', '_' and '-', starting with a letter or digit")
        for item in fields(self):
            value = getattr(self, item.name)
            if item.metadata.get("target") and value is not None:
                self._require(isinstance(value, str) and bool(TARGET.match(value)), item.name, "a string 'package.module:attribute'")

    def _require(self, condition: bool, name: str, wanted: str) -> None:
        if not condition:
            kind = type(self).__name__
            raise SpecError(f"{kind} {self.name!r}: field {name!r} is {getattr(self, name)!r}", fix=f"give {wanted}", spec=kind, field=name)


def target_field(default: Any = ...) -> Any:
    """A dataclass field that must hold a target string."""
    metadata = {"target": True}
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec(Spec):
    """A model that can be built.

    Usually derived from the ``models:`` part of the plugin's fragment; ``build`` takes a :class:`zoo_core.interfaces.BuildRequest` and returns a
    :class:`zoo_core.interfaces.Model`.

    Attributes:
        task: A key of :data:`TASKS`, or a namespaced own task ``"vendor/task"``.
        build: Target of the builder.
        config_class: Target of a dataclass; OmegaConf checks overrides against it.
        config: Values that differ from the dataclass defaults.
        layouts: Names of :class:`WeightsSpec` that its checkpoints may have, in order of preference.
        card: The catalogue entry (plain data; see ``docs/registry.md``).
        variants: Name -> parts of the entry that the variant replaces.
    """

    task: str
    build: Target = target_field()
    config_class: Target | None = target_field(None)
    config: Mapping[str, Any] = field(default_factory=dict)
    layouts: tuple[str, ...] = ()
    card: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def validate(self) -> None:
        Spec.validate(self)
        self._require(self.task in TASKS or "/" in self.task, "task", f"one of {', '.join(TASKS)} or 'vendor/task'")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentSpec(Spec):
    """A replaceable part that is not a model of its own: text encoder, denoiser, adapter..., built by ``registry.build(kind, name, **options)``."""

    kind: str
    build: Target = target_field()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerSpec(Spec):
    """A text or visual tokenizer; ``build(**options)`` returns a :class:`zoo_core.interfaces.Tokenizer`."""

    build: Target = target_field()
    modality: str = "text"

    def validate(self) -> None:
        Spec.validate(self)
        self._require(self.modality in ("text", "image", "video", "scene"), "modality", "'text', 'image', 'video' or 'scene'")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSpec(Spec):
    """A composition of token policy x storage format x layout; ``build(model_config, **options)`` returns a :class:`zoo_core.interfaces.KVCache`."""

    build: Target = target_field()
    policy: str = "full"
    storage: str = "native"
    layout: str = "contiguous"


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSpec(Spec):
    """Kernel operations a plugin adds; ``register(registry)`` receives :data:`zoo_kernels.registry.registry`."""

    register: Target = target_field()


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerSpec(Spec):
    """A sampler; ``build(**options)`` returns a :class:`zoo_core.interfaces.Sampler`."""

    build: Target = target_field()


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatorSpec(Spec):
    """An evaluator written against a task protocol; ``build(**options)`` returns a :class:`zoo_core.interfaces.Evaluator`."""

    task: str
    build: Target = target_field()
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Metric -> ``"higher"`` or ``"lower"`` (which is better)."""
    version: int = 1

    def validate(self) -> None:
        Spec.validate(self)
        self._require(all(way in ("higher", "lower") for way in self.metrics.values()), "metrics", "'higher' or 'lower' for every metric")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsSpec(Spec):
    """One published checkpoint layout.

    Attributes:
        keymap: Target of ``keymap(config) -> KeyMap`` that turns published keys into the module's keys (identity when None).
        detect: Regular expressions; the layout fits when each matches at least one key of the file.
        read_config: Target of ``read_config(path) -> dict`` that reads the configuration which lies beside the weights.
    """

    keymap: Target | None = target_field(None)
    detect: tuple[str, ...] = ()
    read_config: Target | None = target_field(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeSpec(Spec):
    """A training recipe ``zoo train NAME key=value``; ``run(config) -> dict`` gets a checked instance of ``config_class``."""

    run: Target = target_field()
    config_class: Target = target_field()
    produces: str | None = None

    def validate(self) -> None:
        Spec.validate(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimSpec(Spec):
    """A headline number of a paper as a runnable measurement.

    ``measure(context) -> dict`` returns at least ``{"value": float | None, "note": str}``; ``context`` is a :class:`zoo_core.claims.ClaimContext`
    (device, budget in seconds, seed).  ``needs`` lists what this machine must have: ``"cuda"``, ``"weights"``, ``"data:ImageNet"``...
    """

    paper_value: float | str = 0.0
    unit: str = ""
    setting: str = ""
    source: str = ""
    hardware: str = ""
    higher_is_better: bool = True
    tolerance: float | None = None
    needs: tuple[str, ...] = ()
    measure: Target | None = target_field(None)
    scaled: str = ""
    """How the measurement here differs from the paper's setting (empty: it does not)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParitySpec(Spec):
    """Handler of one ``kind`` of recorded case; ``run(case)`` yields :class:`zoo_core.parity.Check` rows. ``name`` is the kind."""

    run: Target = target_field()


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkSpec(Spec):
    """A side-by-side benchmark; ``run(context) -> list[dict]`` gives one row per measured cell."""

    run: Target = target_field()
    against: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConformanceSpec(Spec):
    """What the conformance kit may use: a tiny model and what it declares not to support (check name -> reason)."""

    tiny: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Model name -> options for ``zoo.load(name, weights='random', **options)`` that make it small (its part ``"call"`` goes to the task method instead);
    ``"cache:NAME"`` -> options for building that cache."""
    expected_failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec(Spec):
    """A sub-command ``zoo <plugin> NAME``; ``run(arguments: list[str]) -> int``."""

    run: Target = target_field()


SpecFactory = Callable[..., Spec]

KINDS: dict[str, type[Spec]] = {
    "models": ModelSpec,
    "components": ComponentSpec,
    "tokenizers": TokenizerSpec,
    "caches": CacheSpec,
    "kernels": KernelSpec,
    "samplers": SamplerSpec,
    "evaluators": EvaluatorSpec,
    "weights": WeightsSpec,
    "recipes": RecipeSpec,
    "claims": ClaimSpec,
    "parity": ParitySpec,
    "benchmarks": BenchmarkSpec,
    "commands": CommandSpec,
}
"""Kind (also the name in a fragment's ``provides:`` part and in the hook ``zoo_<kind>``) -> spec class."""
