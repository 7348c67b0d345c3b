"""The examples in the documentation of checkpoint and hub run."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = [
    *(f"zoo_core.checkpoint.{name}" for name in ("keymap", "load", "open", "report", "source", "template")),
    *(f"zoo_core.{name}" for name in ("names", "hub.remote")),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.attempted and not result.failed
