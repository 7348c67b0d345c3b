"""Choosing an implementation once, when a model is built."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

from zoo_kernels.errors import KernelError
from zoo_kernels.quarantine import quarantined
from zoo_kernels.registry import registry
from zoo_kernels.spec import Choice, KernelImpl, Query

ENVIRONMENT = "ZOO_KERNELS"
_forced: list[dict[str, str]] = []
_warned: set[tuple[str, str]] = set()
_choices: dict[int, tuple[Any, Choice]] = {}


def pairs(text: str) -> dict[str, str]:
    """``"a=x,b=y"`` -> mapping.

    >>> pairs("linear_attention=reference, rms_norm=cpu")
    {'linear_attention': 'reference', 'rms_norm': 'cpu'}
    """
    result = {}
    for part in text.split(","):
        if part.strip():
            op, sign, name = part.partition("=")
            if not sign:
                raise KernelError(f"{part.strip()!r} is not of the form op=implementation", fix="linear_attention=reference")
            result[op.strip()] = name.strip()
    return result


@contextlib.contextmanager
def use(**choices: str) -> Iterator[None]:
    """Force implementations for models built inside: ``with use(linear_attention="reference"): ...``."""
    for op, name in choices.items():
        registry.implementation(op, name)
    _forced.append(choices)
    try:
        yield
    finally:
        _forced.remove(choices)


def pinned(op: str, choice: str | None) -> tuple[str, str]:
    """(implementation, who says so) or ("", "")."""
    if choice:
        return choice, "argument"
    for layer in reversed(_forced):
        if op in layer:
            return layer[op], "use()"
    named = pairs(os.environ.get(ENVIRONMENT, "")).get(op)
    return (named, ENVIRONMENT) if named else ("", "")


def reasons_against(implementation: KernelImpl, query: Query, *, trusted: bool = False) -> list[str]:
    """Why this implementation cannot serve the query (empty: it can); ``trusted`` leaves the quarantine out."""
    reasons = list(implementation.supports(query))
    if query.needs_grad and not implementation.backward:
        reasons.append("has no backward pass")
    if query.compiled and not implementation.compile_safe:
        reasons.append("breaks the graph under torch.compile")
    note = "" if trusted else quarantined(implementation, query.device)
    if note:
        reasons.append(f"quarantined on this machine: {note}")
    return reasons


def choose(op: str, query: Query, choice: str | None = None, *, fallback: bool = True, probe: bool = True) -> tuple[Callable[..., Any], Choice]:
    """The callable and the record of the decision; see :func:`select`.  ``probe=False`` starts no child process."""
    from zoo_kernels.probe import first_use

    name, who = pinned(op, choice)
    rejected: dict[str, list[str]] = {}
    candidates = registry.implementations(op)
    if name:
        candidates = [registry.implementation(op, name), *(c for c in candidates if c.name != name)]
    surprises: dict[str, str] = {}
    for position, implementation in enumerate(candidates):
        reasons, surprise = reasons_against(implementation, query, trusted=True), False
        if not reasons:
            note = quarantined(implementation, query.device)
            reasons = [f"quarantined on this machine: {note}"] if note else first_use(implementation, query) if probe else []
            surprise = bool(reasons)
        if not reasons:
            try:
                function = implementation.load()
            except Exception as error:
                reasons, surprise = [f"cannot be loaded ({type(error).__name__}: {error})"], True
            else:
                forced = who if name and position == 0 else ""
                return function, Choice(op, implementation.name, forced, rejected, surprises)
        rejected[implementation.name] = reasons
        forced_now = bool(name) and position == 0
        if forced_now and not fallback:
            raise KernelError(f"kernel {op}={name} (forced by {who}) cannot run here", reasons=rejected, fix=f"leave the choice out, or {op}=reference")
        if forced_now or surprise:
            surprises[implementation.name] = "; ".join(reasons)
            _warn(op, implementation.name, f" (forced by {who})" if forced_now else "", surprises[implementation.name])
    raise KernelError(f"no implementation of {op} can serve {query.dtype} on {query.device}", reasons=rejected)


def _warn(op: str, name: str, forced: str, reasons: str) -> None:
    """Say once per process that the next best implementation is used."""
    if (op, name) not in _warned:
        _warned.add((op, name))
        warnings.warn(f"kernel {op}={name}{forced} cannot run here: {reasons}; another is used", RuntimeWarning, stacklevel=4)


def select(
    op: str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    needs_grad: bool = False,
    choice: str | None = None,
    fallback: bool = True,
    compiled: bool = False,
    **hints: Any,
) -> Callable[..., Any]:
    """A plain callable of operation ``op`` for this device, dtype and shape: bind it once, call it often.

    Args:
        choice: Force an implementation (else ``use()``, else the environment variable ``ZOO_KERNELS``).
        fallback: When the forced one cannot run: use another with one warning (True), or raise (False).
        compiled: The call will stand inside ``torch.compile``: implementations that break the graph are left out.
        hints: Shape facts the operation documents.

    Raises:
        KernelError: Unknown names, or nothing can run; lists every implementation's reasons.

    >>> import torch
    >>> attend = select("linear_attention", dtype=torch.float32, head_dim=8)
    >>> attend(torch.randn(1, 5, 2, 8), torch.randn(1, 5, 2, 8), torch.randn(1, 5, 2, 8)).shape
    torch.Size([1, 5, 2, 8])
    """
    query = Query(torch.device(device), dtype, needs_grad, hints, compiled)
    function, record = choose(op, query, choice, fallback=fallback)
    _choices[id(function)] = (function, record)
    return function


def describe(function: Callable[..., Any]) -> str:
    """What :func:`select` decided when it returned ``function``."""
    found = _choices.get(id(function))
    return str(found[1]) if found is not None and found[0] is function else "unknown"


def explain(op: str, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, needs_grad: bool = False, **hints: Any) -> Choice:
    """The choice for a query, with the reasons against every implementation that comes before it; starts no child process."""
    return choose(op, Query(torch.device(device), dtype, needs_grad, hints), probe=False)[1]


def survey(op: str, query: Query) -> list[tuple[KernelImpl, list[str]]]:
    """Every implementation, best first, with its reasons against the query (empty: it can serve)."""
    return [(item, reasons_against(item, query)) for item in registry.implementations(op)]
