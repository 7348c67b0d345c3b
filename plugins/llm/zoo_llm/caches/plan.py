"""A cache plan: which attention a model must run with and how to make a fresh cache for one generation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zoo_core.errors import InputError
from zoo_core.interfaces import TokenPolicy

if TYPE_CHECKING:
    from transformers import PreTrainedConfig
    from transformers.cache_utils import Cache


@dataclass(frozen=True)
class CachePlan:
    """What composing ``cache=...`` gives.

    Attributes:
        name: Name under which it was asked for.
        make: ``make(reserve=0)`` returns a fresh cache; ``reserve`` is the expected number of tokens (0: unknown).
        attention: Attention implementation the model must be switched to (None: leave it).
        details: Numbers for reports (sink, recent, share of full heads, storage...).
        kernels: Op -> what attention runs with, for the load report.
    """

    name: str
    make: Callable[..., Cache]
    attention: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    kernels: Mapping[str, str] = field(default_factory=dict)


def dynamic_plan(model: Any, **_: Any) -> CachePlan:
    """transformers' own ``DynamicCache`` with the model's own attention."""
    from transformers import DynamicCache

    config = model.module.config
    return CachePlan("dynamic", lambda reserve=0: DynamicCache(config=config))


def full_plan(model: Any, *, storage: str = "native", **_: Any) -> CachePlan:
    """Every kv-head keeps everything, in any storage format."""
    layers = layer_count(model.module.config)
    heads = kv_heads(model.module.config)
    return policy_plan("full" if storage == "native" else f"full-{storage}", [[TokenPolicy()] * heads] * layers, storage=storage, model=model)


def policy_plan(
    name: str,
    policies: Sequence[Sequence[TokenPolicy]],
    *,
    storage: str = "native",
    prefill: str = "streaming",
    details: Mapping[str, Any] | None = None,
    model: Any = None,
) -> CachePlan:
    """A plan from one policy per layer and kv-head.

    Args:
        model: The language model handle; the kernels are then chosen here, for its device and dtype and as its ``kernels=`` said, instead of with the first
            tokens.
    """
    from zoo_llm.caches import attention
    from zoo_llm.caches.kernels import NONE, KernelBinder
    from zoo_llm.caches.layer import PolicyCache, PolicyLayer
    from zoo_llm.caches.storage import storage_format

    fmt = storage_format(storage)
    binder = KernelBinder(getattr(model, "kernel_choices", None))
    kernels = NONE if model is None else binder.at(model.device, model.module.dtype, head_dim(model.module.config))

    def make(reserve: int = 0) -> Cache:
        return PolicyCache([PolicyLayer(row, fmt, prefill, reserve, binder) for row in policies])

    flat = [p for row in policies for p in row]
    full = sum(p.kind == "full" for p in flat) / max(1, len(flat))
    unused = "head_policy_decode" if fmt.name == "int4" else "int4_kv_decode"
    names = {op: choice for op, choice in kernels.names.items() if op != unused}
    return CachePlan(name, make, attention.register(), {"storage": fmt.name, "prefill": prefill, "full_heads": full, **(details or {})}, names)


def text_config(config: PreTrainedConfig) -> Any:
    """The decoder's own config (multimodal configs nest it)."""
    return config.get_text_config(decoder=True)


def layer_count(config: PreTrainedConfig) -> int:
    return int(text_config(config).num_hidden_layers)


def kv_heads(config: PreTrainedConfig) -> int:
    """Number of kv-heads per layer.

    Raises:
        InputError: The family has no ordinary kv-heads (latent or linear attention).
    """
    inner = text_config(config)
    heads = getattr(inner, "num_key_value_heads", None) or getattr(inner, "num_attention_heads", None)
    if heads is None or getattr(inner, "kv_lora_rank", None):
        raise InputError(f"model type {inner.model_type!r} has no ordinary kv-heads, so per-head caches do not apply", fix="cache='dynamic'")
    return int(heads)


def head_dim(config: PreTrainedConfig) -> int:
    """Channels per head."""
    inner = text_config(config)
    return int(getattr(inner, "head_dim", None) or inner.hidden_size // inner.num_attention_heads)
