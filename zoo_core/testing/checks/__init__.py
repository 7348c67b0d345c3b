"""The checks, one module per group; :func:`all_checks` imports them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo_core.testing.subject import Subject

Items = Callable[["Subject"], Iterable[str]]
MODULES = ("metadata", "packaging", "code", "building", "checkpoints", "images", "language", "vision", "parts")


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: ``"group.what"``; stable, because plugins name it in ``expected_failures``.
        run: ``run(subject)`` or ``run(subject, item)``: raises AssertionError when the plugin is wrong and :class:`~zoo_core.testing.Skipped` when the
            check does not apply; may return a remark.
        items: What it is run on (None: the plugin as a whole).
        needs: Names or prefixes (``"metadata."``) of checks that must not have failed.
    """

    name: str
    run: Callable[..., str | None]
    items: Items | None = None
    needs: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        return (self.run.__doc__ or "").strip().splitlines()[0]


_CHECKS: dict[str, Check] = {}


def check(name: str, *, items: Items | None = None, needs: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a check; its docstring's first line says what it demands."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        assert name not in _CHECKS, f"two checks are called {name!r}"
        _CHECKS[name] = Check(name, function, items, needs)
        return function

    return register


def all_checks() -> list[Check]:
    """All checks in the order in which they run (what others need comes first)."""
    for module in MODULES:
        importlib.import_module(f"zoo_core.testing.checks.{module}")
    return list(_CHECKS.values())
