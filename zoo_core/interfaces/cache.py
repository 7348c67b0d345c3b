"""Caches of a decoder: token policy x storage format x layout.

One :class:`LayerState` per layer.  It is not simply (K, V): a layer may append any number of tensors (K and V; K, V and block-mean keys; one shared latent; a
convolution state) and gets back what its attention needs.  Policies differ per kv-head; a policy decides which positions stay, a storage format how they
are held, a layout where.  Implementations for transformers models subclass its ``Cache``/``CacheLayerMixin`` as well, so ``generate()`` keeps working.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """Bytes held: ``used`` by live tokens, ``allocated`` in total, ``overhead`` (scales, zeros, page tables) as part of ``used``; ``parts`` by name."""

    used: int
    allocated: int
    overhead: int = 0
    tokens: int = 0
    parts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """Which positions a kv-head keeps: everything (``kind='full'``) or ``sink`` first and ``recent`` last ones (``kind='sink-recent'``).

    Third kinds are allowed (``kind`` is free text); ``options`` holds their numbers.
    """

    kind: str = "full"
    sink: int = 0
    recent: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    def kept(self, length: int) -> int:
        """How many of ``length`` positions stay."""
        return length if self.kind == "full" else min(length, self.sink + self.recent)


@runtime_checkable
class StorageFormat(Protocol):
    """How one tensor [..., tokens, dim] is held (native dtype, int8, int4 with scale and zero per head and token...)."""

    name: str

    def encode(self, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Stored parts, each with the token axis at -2."""
        ...

    def decode(self, parts: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        """Values again."""
        ...

    def bytes_per_token(self, dim: int, dtype: torch.dtype) -> float:
        """Bytes for one token of one head, scales included."""
        ...


@runtime_checkable
class LayerState(Protocol):
    """State of one layer."""

    length: int
    """Tokens seen (committed); positions kept may be fewer."""

    policies: Sequence[TokenPolicy]
    """One per kv-head."""

    def append(self, *tensors: torch.Tensor, commit: bool = True) -> tuple[torch.Tensor, ...]:
        """Add one or many tokens ([batch, heads, tokens, dim] each) and return what attention needs.

        ``commit=False`` shows the new tokens to attention but does not keep them (MaskGIT-like steps that are repeated, speculative decoding).
        """
        ...

    def crop(self, length: int) -> None:
        """Forget tokens after ``length``; raises :class:`~zoo_core.errors.InputError` when the policy already evicted what would be needed."""
        ...

    def reorder(self, index: torch.Tensor) -> None:
        """Select batch rows (beam search)."""
        ...

    def reset(self) -> None: ...

    def memory(self) -> MemoryReport: ...


@runtime_checkable
class KVCache(Protocol):
    """All layers."""

    layers: Sequence[LayerState]

    def get_seq_length(self, layer_idx: int = 0) -> int: ...

    def reset(self) -> None: ...

    def memory(self) -> MemoryReport: ...
