"""Every plugin of this checkout passes the conformance kit (those that are installed in this environment)."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

import pytest

from zoo_core.testing import check_plugin

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(name for file in ROOT.glob("plugins/*/pyproject.toml") for name in tomllib.loads(file.read_text())["project"]["entry-points"]["zoo.plugins"])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_plugin_conforms(name: str) -> None:
    if name not in importlib.metadata.entry_points(group="zoo.plugins").names:
        pytest.skip(f"the plugin {name} is not installed here")
    wrong = [result for result in check_plugin(name) if not result.ok]
    assert not wrong, "\n".join(f"{result.id}: {result.message}" for result in wrong)
