"""Which numeric kernels the per-head caches run with: chosen once per device and dtype, when the cache plan is made.

Where no kernel is bound, :mod:`zoo_llm.caches.attention` makes one scaled-dot-product call per group of heads.  That is the rule on CPUs for the two ops whose
CPU kernels are such calls themselves (measured equal, one thread of an AMD EPYC (Zen 5), 8192 tokens, 2026-11-23); the 4-bit kernel was 2.6 to 6.7 times
faster there than restoring the cache for every token.  A forced choice (``kernels=``, ``zoo_kernels.use``, ``ZOO_KERNELS``) is always followed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

OPS = ("head_policy_decode", "streaming_prefill", "int4_kv_decode")
FASTER_ON_CPU = ("int4_kv_decode",)
GROUPED = "scaled_dot_product_attention per group of heads"

Kernel = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class CacheKernels:
    """Bound kernels; None: the ordinary path.

    Attributes:
        head_policy_decode: One new token over full and ring heads in one launch.
        streaming_prefill: Several new tokens of streaming heads.
        int4_kv_decode: One new token over 4-bit storage.
        names: Op -> what was chosen, for the load report.
    """

    head_policy_decode: Kernel | None = None
    streaming_prefill: Kernel | None = None
    int4_kv_decode: Kernel | None = None
    names: Mapping[str, str] = field(default_factory=dict)


NONE = CacheKernels()


class KernelBinder:
    """Chooses once per (device, dtype, head size) and remembers; shared by all layers of all caches of a plan.

    Args:
        choices: Op -> implementation that the caller forces.

    Raises:
        KernelError: A forced op or implementation does not exist.
    """

    def __init__(self, choices: Mapping[str, str] | None = None) -> None:
        self.choices = {op: name for op, name in (choices or {}).items() if op in OPS}
        self._bound: dict[tuple[torch.device, torch.dtype, int], CacheKernels] = {}

    def at(self, device: torch.device, dtype: torch.dtype, head_dim: int) -> CacheKernels:
        """The kernels for tensors of this kind (a model that was moved after loading gets its own)."""
        key = (torch.device(device), dtype, head_dim)
        if key not in self._bound:
            self._bound[key] = NONE if key[0].type == "meta" else bind(*key, self.choices)
        return self._bound[key]


def bind(device: torch.device, dtype: torch.dtype, head_dim: int, choices: Mapping[str, str] | None = None) -> CacheKernels:
    """Select an implementation of every op; an unforced ``reference`` is never bound (the ordinary path is faster)."""
    from zoo_kernels import Query
    from zoo_kernels.selection import choose, pinned

    bound: dict[str, Any] = {}
    names: dict[str, str] = {}
    for op in OPS:
        choice = (choices or {}).get(op)
        forced = bool(pinned(op, choice)[0])
        names[op] = GROUPED
        if device.type == "cpu" and op not in FASTER_ON_CPU and not forced:
            continue
        function, record = choose(op, Query(device, dtype, hints={"head_dim": head_dim}), choice)
        if forced or record.name != "reference":
            bound[op], names[op] = function, str(record)
    return CacheKernels(**bound, names=names)
