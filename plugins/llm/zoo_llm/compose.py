"""Composition: a language model = backbone x cache x weight quantisation x position scaling x adapter.

Each part is found by name in the registry, so any plugin may add its own: caches as ``CacheSpec``, the others as ``ComponentSpec`` whose names begin with
``quant.``, ``adapter.`` or ``rope.``.  A part may also be given as a mapping ``{"name": ..., option: value}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo_core.errors import InputError, UnknownNameError
from zoo_core.specs import resolve

if TYPE_CHECKING:
    from zoo_llm.caches.plan import CachePlan
    from zoo_llm.model import LanguageModel


def split_part(part: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """``"duo"`` or ``{"name": "duo", "sparsity": 0.5}`` -> name and options.

    >>> split_part({"name": "duo", "sparsity": 0.5})
    ('duo', {'sparsity': 0.5})
    """
    if isinstance(part, str):
        return part, {}
    options = dict(part)
    if "name" not in options:
        raise InputError(f"composition: {part!r} has no 'name'", fix="{'name': 'duo', 'sparsity': 0.5}")
    return str(options.pop("name")), options


def cache_plan(registry: Any, model: LanguageModel, cache: Any) -> CachePlan:
    """The plan for ``cache``: None or ``"dynamic"`` (transformers' own), a registered name, a mapping with options, or a finished plan."""
    from zoo_llm.caches.plan import CachePlan, dynamic_plan

    if isinstance(cache, CachePlan):
        return cache
    if cache is None or cache == "dynamic":
        return dynamic_plan(model)
    name, options = split_part(cache)
    spec = registry.get("caches", name)
    return resolve(spec.build)(model, **{"policy": spec.policy, "storage": spec.storage, "layout": spec.layout, **options})


def component(registry: Any, kind: str, part: str | Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Builder and options of ``quant``, ``adapter`` or ``rope``; ``"longlora:PATH"`` passes ``argument="PATH"``."""
    name, options = split_part(part)
    name, _, argument = name.partition(":")
    if argument:
        options["argument"] = argument
    full = f"{kind}.{name}"
    try:
        spec = registry.get("components", full)
    except UnknownNameError as error:
        known = [n.removeprefix(f"{kind}.") for n in registry.names("components") if n.startswith(f"{kind}.")]
        raise InputError(f"{kind} {name!r} is unknown", tried=[f"known: {', '.join(sorted(known)) or 'none'}"], fix=f"{kind}=<one of these>") from error
    return resolve(spec.build), options


ROPE_TYPES = ("linear", "dynamic", "yarn")


def scale_positions(config: Any, rope: str | Mapping[str, Any]) -> None:
    """Change ``config.rope_parameters`` in place before the model is built.

    ``"linear:8"``, ``"dynamic:2"``, ``"yarn:4"`` (factor on the trained length) or ``{"rope_type": ..., ...}`` as transformers spells it;
    ``"theta:1e6"`` sets the base.
    """
    parameters = dict(getattr(config, "rope_parameters", None) or {})
    if isinstance(rope, Mapping):
        parameters.update(rope)
    else:
        kind, _, number = rope.partition(":")
        try:
            value = float(number)
        except ValueError:
            raise InputError(f"rope {rope!r} has no number", fix="rope='linear:8'") from None
        if kind == "theta":
            parameters["rope_theta"] = value
        elif kind in ROPE_TYPES:
            trained = parameters.get("original_max_position_embeddings") or config.max_position_embeddings
            parameters.update(rope_type=kind, factor=value)
            if kind != "linear":
                parameters["original_max_position_embeddings"] = trained
            config.max_position_embeddings = int(trained * value)
        else:
            raise InputError(f"rope {kind!r} is unknown", fix=f"use one of {', '.join(ROPE_TYPES)} or theta, e.g. rope='linear:8'")
    config.rope_parameters = parameters
