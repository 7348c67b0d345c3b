"""Pytest fixtures around weights: ``pytest_plugins = ["zoo_core.testing.weight_fixtures"]``, or import them by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from zoo_core.testing.fake_hub import FakeHub
from zoo_core.testing.faults import no_network
from zoo_core.testing.hostile import HostileFile, hostile_files


@pytest.fixture
def zoo_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own for the zoo and for the hub library, and no offline switches."""
    home = tmp_path / "zoo-home"
    monkeypatch.setenv("ZOO_HOME", str(home))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "ZOO_OFFLINE", "HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def fake_hub(zoo_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub on the loopback interface that ``HF_ENDPOINT`` points to; every other address is unreachable."""
    with FakeHub() as hub, no_network(loopback=True):
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def network_forbidden() -> Iterator[list[str]]:
    """No network socket may be used at all; the test fails if one was tried, even when the error was swallowed."""
    with no_network() as attempts:
        yield attempts
    assert not attempts, f"the network was used: {attempts}"


@pytest.fixture
def hostile_corpus(tmp_path: Path) -> Iterator[list[HostileFile]]:
    """About thirty damaged, foreign and malicious files; the test fails if code of one of them ran."""
    yield hostile_files(tmp_path / "hostile")
    assert not (tmp_path / "hostile" / "CODE-RAN").exists(), "code from a weight file was run"
