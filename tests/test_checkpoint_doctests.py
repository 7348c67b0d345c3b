"""The examples in the documentation of checkpoint and hub run."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = [
    *(f"zoo_core.checkpoint.{name}" for name in ("keymap", "layout", "load", "open", "report", "source", "template")),
    *(f"zoo_core.hub.{name}" for name in ("names", "remote")),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.attempted and not result.failed
