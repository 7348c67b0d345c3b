"""Operations and implementations by name; every folder below ``operations/`` registers itself when first needed."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import threading
from collections.abc import Iterator
from typing import Any

from zoo_kernels.errors import KernelError
from zoo_kernels.spec import KernelImpl, OpSpec


class KernelRegistry:
    """Add ops and implementations here; third parties too (``registry.add_op``, ``registry.add``)."""

    def __init__(self) -> None:
        self._ops: dict[str, OpSpec] = {}
        self._implementations: dict[str, dict[str, KernelImpl]] = {}
        self._lock = threading.RLock()
        self._scanned = False
        self._origin = ""
        self._origins: dict[str, str] = {}
        self._targets: set[str] = set()

    def scan(self) -> None:
        """Import the package's own ops (once); adding an op means adding a folder."""
        with self._lock:
            if self._scanned:
                return
            self._scanned = True
            import zoo_kernels.operations as package

            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"zoo_kernels.operations.{module.name}").register(self)

    def add_op(self, op: OpSpec) -> None:
        """Add an operation; its reference becomes the implementation ``reference``."""
        with self._lock:
            if op.name in self._ops:
                raise KernelError(f"operation {op.name!r} is registered already", fix="choose another name")
            self._ops[op.name] = op
            self._origins[op.name] = self._origin
            self.add(KernelImpl(op.name, "reference", lambda: op.reference, priority=-100))

    def add(self, implementation: KernelImpl) -> None:
        """Add an implementation of an operation."""
        with self._lock:
            table = self._implementations.setdefault(implementation.op, {})
            if implementation.name in table:
                raise KernelError(f"operation {implementation.op!r} has an implementation {implementation.name!r} already", fix="choose another name")
            table[implementation.name] = dataclasses.replace(implementation, origin=implementation.origin or self._origin)

    def register_from(self, target: str) -> None:
        """Call ``module:function`` with this registry (once); what it adds remembers the target, so that a child process can repeat it.

        Raises:
            KernelError: ``target`` is not of that form, or cannot be imported.
        """
        module, sign, name = target.partition(":")
        if not sign:
            raise KernelError(f"{target!r} is not of the form module:function")
        with self._lock:
            if target in self._targets:
                return
            try:
                function = getattr(importlib.import_module(module), name)
            except (ImportError, AttributeError) as error:
                raise KernelError(f"kernels of {target!r} cannot be registered: {error}") from error
            before = dict(self._ops), {op: dict(table) for op, table in self._implementations.items()}, dict(self._origins)
            self._origin = target
            try:
                function(self)
            except BaseException:  # nothing of it remains
                self._ops, self._implementations, self._origins = before
                raise
            finally:
                self._origin = ""
            self._targets.add(target)

    def op(self, name: str) -> OpSpec:
        self.scan()
        if name not in self._ops:
            raise KernelError(f"operation {name!r} is unknown", fix=f"known: {', '.join(sorted(self._ops))}")
        return self._ops[name]

    def origin(self, op: str) -> str:
        """``module:function`` that registered the operation ("" for the package's own)."""
        self.op(op)
        return self._origins[op]

    def implementations(self, op: str) -> list[KernelImpl]:
        """Best first."""
        self.op(op)
        return sorted(self._implementations[op].values(), key=lambda item: (-item.priority, item.name))

    def implementation(self, op: str, name: str) -> KernelImpl:
        self.op(op)
        table = self._implementations[op]
        if name not in table:
            raise KernelError(f"operation {op!r} has no implementation {name!r}", fix=f"one of {', '.join(sorted(table))}")
        return table[name]

    def __iter__(self) -> Iterator[str]:
        self.scan()
        return iter(sorted(self._ops))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


registry = KernelRegistry()
"""The registry of this process."""
