"""Parts of models: tokenizers for text and pictures, and modules that bind kernels.

The operations live in the distribution ``zoo-kernels`` (:mod:`zoo_kernels`), which knows neither core nor papers.  A model binds its kernels once, when it is
built (``self.attend = zoo_kernels.select("linear_attention", device=..., dtype=..., needs_grad=...)``), never per call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back (any ``transformers`` tokenizer satisfies it)."""

    vocab_size: int

    def encode(self, text: str, **options: Any) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], **options: Any) -> str: ...


@runtime_checkable
class VisualTokenizer(Protocol):
    """Pictures to discrete codes (and, for hybrid tokenizers, a continuous residual) and back.

    ``encode`` takes [B, 3, H, W] in [-1, 1] and returns codes as a list of int64 maps, one per scale or depth; ``decode`` takes them back.
    """

    codebook_size: int

    def encode(self, images: torch.Tensor, **options: Any) -> list[torch.Tensor]: ...

    def decode(self, codes: Sequence[torch.Tensor], residual: torch.Tensor | None = None, **options: Any) -> torch.Tensor: ...


@runtime_checkable
class KernelBound(Protocol):
    """A module that (re)binds its kernels: called by ``zoo.load`` once weights are on their device; returns ``{site: implementation}`` for the report."""

    def bind_kernels(self, choices: Mapping[str, str] | None = None) -> Mapping[str, Any]: ...
