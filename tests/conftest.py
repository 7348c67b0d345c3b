"""Made-up plugins for the tests of the core: a package and a hand-made ``dist-info`` in a temporary folder that is put on ``sys.path``."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a background job of a script: the processes that tests start would ignore Ctrl-C too
    signal.signal(signal.SIGINT, signal.default_int_handler)

PLUGIN = """from zoo_core import hookimpl
"""
MODEL = """
import torch
from zoo_core.interfaces import Model


class Toy(Model):
    classes = ("sky", "road")
    palette = ((0, 0, 255), (90, 90, 90))

    def generate(self, prompt, *, steps=4, guidance=1.0, seed=None, **options):
        from PIL import Image
        from zoo_core.interfaces import ImageResult
        if options:
            raise ValueError(f"unknown options {sorted(options)}")
        value = int(torch.manual_seed(seed or 0).initial_seed() + steps) % 256
        return ImageResult(images=[Image.new("RGB", (8, 8), (value, 0, 0))], seed=seed, info={"steps": steps, "prompt": prompt})


def build(request):
    from zoo_core.errors import ConfigError
    for name in request.options:
        if name not in ("kernels", "speed"):
            raise ConfigError(f"toy does not know the option {name!r}", fix="known: kernels, speed")
    width = request.config["width"] if isinstance(request.config, dict) else request.config.width
    with torch.random.fork_rng():
        torch.manual_seed(request.weights.seed)
        module = torch.nn.Linear(width, width)
    module.to(request.device, request.dtype_for("net", torch.float32))
    return Toy(request.spec, request.config, {"net": module}, request.report)
"""


def write_plugin(
    folder: Path, name: str, *, fragment: dict[str, Any] | str | None = None, plugin: str = PLUGIN, files: dict[str, str] | None = None, version: str = "1.0",
    distribution: str | None = None, requires: tuple[str, ...] = (), package: str | None = None, metadata: bool = True,
) -> Path:  # fmt: skip
    """A package ``x_<name>`` and its ``dist-info``; returns the package's folder."""
    package = package or "x_" + name.replace("-", "_")
    distribution = distribution or f"x-{name}"
    root = folder / package
    root.mkdir(parents=True, exist_ok=True)
    (root / "__init__.py").write_text("")
    (root / "plugin.py").write_text(plugin)
    (root / "model.py").write_text(MODEL)
    base = {"schema": 1, "plugin": name, "distribution": distribution, "package": package, "api": 1}
    if fragment is None:
        fragment = {"models": {f"{name}-model": {"task": "text-to-image", "build": f"{package}.model:build", "config": {"width": 4}, "status": "config-only"}}}
    content = fragment if isinstance(fragment, str) else json.dumps({**base, **fragment})
    (root / "registry.json").write_text(content)
    for path, text in (files or {}).items():
        (root / path).write_text(text)
    if metadata:
        write_metadata(folder, name, package, distribution, version, requires)
    return root


def write_metadata(folder: Path, name: str, package: str, distribution: str, version: str, requires: tuple[str, ...] = ()) -> Path:
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n" + "".join(f"Requires-Dist: {line}\n" for line in requires)
    )
    (info / "entry_points.txt").write_text(f"[zoo.plugins]\n{name} = {package}.plugin\n")
    return info


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on ``sys.path``, no user settings, and a registry that forgets it afterwards."""
    from zoo_core.registry import get_registry

    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("ZOO_CONFIG", str(tmp_path / "config.json"))
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    for variable in ("ZOO_PLUGINS", "ZOO_PLUGINS_DISABLE", "ZOO_OFFLINE", "ZOO_DEBUG"):
        monkeypatch.delenv(variable, raising=False)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0].startswith("x_")]:
        del sys.modules[name]
    monkeypatch.undo()
    get_registry(refresh=True)


@pytest.fixture
def plugin(site: Path) -> Callable[..., Path]:
    """``plugin("good", fragment={...}, plugin="...")`` writes one; see :func:`write_plugin`."""

    def make(name: str, **options: Any) -> Path:
        return write_plugin(site, name, **options)

    return make


@pytest.fixture
def registry(site: Path) -> Callable[[], Any]:
    """A fresh process-wide registry over the made-up plugins."""
    from zoo_core.registry import get_registry

    return lambda: get_registry(refresh=True)
