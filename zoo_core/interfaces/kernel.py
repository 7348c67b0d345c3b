"""What the core needs to know about kernels: how a model asks for one.

The operations live in the distribution ``zoo-kernels`` (:mod:`zoo_kernels`), which knows neither core nor papers.  A model binds its kernels once, when it is
built (``self.attend = zoo_kernels.select("linear_attention", device=..., dtype=..., needs_grad=...)``), never per call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class KernelBound(Protocol):
    """A module that (re)binds its kernels: called by ``zoo.load`` once weights are on their device; returns ``{site: implementation}`` for the report."""

    def bind_kernels(self, choices: Mapping[str, str] | None = None) -> Mapping[str, Any]: ...
