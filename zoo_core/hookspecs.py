"""The hooks a plugin may implement (pluggy project name ``"zoo"``).

The module that a plugin names in its entry point (group ``zoo.plugins``) holds plain functions marked with :data:`hookimpl`.  It must not import
torch or other heavy libraries: a hook returns specs, whose targets are imported when used.  An implementation may take fewer arguments
than the hook offers.  All hooks are optional.

    # zoo_mypaper/plugin.py
    from zoo_core import hookimpl
    from zoo_core.specs import EvaluatorSpec

    @hookimpl
    def zoo_evaluators():
        return [EvaluatorSpec(name="my-score", task="text-to-image", build="zoo_mypaper.score:MyScore")]

Models need no hook: they are the ``models:`` part of ``registry.yaml`` in the same package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pluggy

from zoo_core import specs as s

if TYPE_CHECKING:
    from zoo_core.interfaces import LoadReport, Model

hookspec = pluggy.HookspecMarker("zoo")
hookimpl = pluggy.HookimplMarker("zoo")


@hookspec
def zoo_models() -> Sequence[s.ModelSpec]:  # type: ignore[empty-body]
    """Models that are made by a program rather than written in the fragment (their names must stand in the fragment too)."""


@hookspec
def zoo_components() -> Sequence[s.ComponentSpec]:  # type: ignore[empty-body]
    """Replaceable parts by kind and name."""


@hookspec
def zoo_tokenizers() -> Sequence[s.TokenizerSpec]:  # type: ignore[empty-body]
    """Text and visual tokenizers."""


@hookspec
def zoo_caches() -> Sequence[s.CacheSpec]:  # type: ignore[empty-body]
    """Key-value caches."""


@hookspec
def zoo_kernels() -> Sequence[s.KernelSpec]:  # type: ignore[empty-body]
    """Kernel operations and implementations beyond those in ``zoo_kernels``."""


@hookspec
def zoo_samplers() -> Sequence[s.SamplerSpec]:  # type: ignore[empty-body]
    """Diffusion and flow samplers."""


@hookspec
def zoo_evaluators() -> Sequence[s.EvaluatorSpec]:  # type: ignore[empty-body]
    """Evaluators."""


@hookspec
def zoo_weights() -> Sequence[s.WeightsSpec]:  # type: ignore[empty-body]
    """Checkpoint layouts."""


@hookspec
def zoo_recipes() -> Sequence[s.RecipeSpec]:  # type: ignore[empty-body]
    """Training recipes."""


@hookspec
def zoo_claims() -> Sequence[s.ClaimSpec]:  # type: ignore[empty-body]
    """Headline numbers of the paper."""


@hookspec
def zoo_parity() -> Sequence[s.ParitySpec]:  # type: ignore[empty-body]
    """Handlers of recorded reference cases."""


@hookspec
def zoo_benchmarks() -> Sequence[s.BenchmarkSpec]:  # type: ignore[empty-body]
    """Side-by-side benchmarks."""


@hookspec
def zoo_commands() -> Sequence[s.CommandSpec]:  # type: ignore[empty-body]
    """Own sub-commands, reached as ``zoo <plugin> <name>``."""


@hookspec
def zoo_conformance() -> Sequence[s.ConformanceSpec]:  # type: ignore[empty-body]
    """What the conformance kit should use for this plugin."""


@hookspec
def zoo_doctor() -> Sequence[tuple[str, str, str]]:  # type: ignore[empty-body]
    """Extra checks for ``zoo doctor``: (level ``ok|warn|fail``, what, hint)."""


@hookspec
def zoo_post_load(model: Model, report: LoadReport, options: dict[str, Any]) -> None:
    """Called after a model of any plugin was loaded, for plugins that are already active."""
