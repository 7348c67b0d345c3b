"""The examples in docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import zoo_kernels

MODULES = [m.name for m in pkgutil.walk_packages(zoo_kernels.__path__, "zoo_kernels.") if m.name.rpartition(".")[2] not in ("triton", "flash_decode")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    import torch

    module = importlib.import_module(name)
    assert doctest.testmod(module, extraglobs={"torch": torch}).failed == 0


def test_there_are_examples() -> None:
    assert sum(bool(test.examples) for name in MODULES for test in doctest.DocTestFinder().find(importlib.import_module(name))) >= 8
