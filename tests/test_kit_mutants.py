"""The conformance kit from outside the tree: a good plugin passes, and each deliberately bad one fails exactly its check.

The core, the kernels and all plugins are copied to a temporary folder; one child process with that folder on its path and a foreign working directory
runs the kit on all of them.  The plugins come from the template of ``zoo new-plugin`` by small changes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from zoo_core.scaffold import create

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="hatchling is not installed beside pytest")


Mutation = Callable[[Path], None]
"""Changes a plugin's package folder (or the project folder above it)."""


def edit(file: str, old: str, new: str) -> Mutation:
    """Replace text in one file of the package (or ``../`` of the project)."""

    def change(package: Path) -> None:
        path = (package / file).resolve()
        text = path.read_text()
        assert old in text, f"{path.name} has no {old!r}"
        path.write_text(text.replace(old, new))

    return change


def compile_unchecked(package: Path, data: dict[str, Any]) -> None:
    """Write both forms of a fragment, whatever it holds (``zoo registry build`` would refuse some)."""
    (package / "registry.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    (package / "registry.json").write_text(json.dumps(data))


def entry(**changes: Any) -> Mutation:
    """Replace fields of the only model's entry (None removes one) and compile the fragment."""

    def change(package: Path) -> None:
        path = package / "registry.yaml"
        data = yaml.safe_load(path.read_text())
        card = next(iter(data["models"].values()))
        card.update(changes)
        for key in [key for key, value in changes.items() if value is None]:
            del card[key]
        compile_unchecked(package, data)

    return change


def top(**changes: Any) -> Mutation:
    """Merge into the fragment's top level and compile it."""

    def change(package: Path) -> None:
        path = package / "registry.yaml"
        data = yaml.safe_load(path.read_text())
        for key, value in changes.items():
            data[key] = {**data[key], **value} if isinstance(value, dict) else value
        compile_unchecked(package, data)

    return change


def stale(package: Path) -> None:
    path = package / "registry.yaml"
    path.write_text(path.read_text().replace("parameters: 1167", "parameters: 1166"))


def remove(file: str) -> Mutation:
    return lambda package: (package / file).unlink()


def at_import(code: str) -> Mutation:
    """Statements at the top of the entry-point module."""
    return edit("plugin.py", "from __future__ import annotations\n", f"from __future__ import annotations\n\n{code}\n")


def published(**weights: Any) -> Mutation:
    return entry(status="published", weights=[{"source": "hf://someone/something", "files": [{"path": "model.safetensors"}], **weights}])


CONNECT = """
import contextlib
import socket
with contextlib.suppress(OSError):
    socket.create_connection(("127.0.0.1", 9), 0.1).close()
"""
ENCODER = "return self.network.encoder(images"
BACKEND = 'build-backend = "hatchling.build"\n'

MUTANTS: dict[str, tuple[str, Mutation]] = {
    # metadata
    "no-fragment": ("metadata.fragment", remove("registry.yaml")),
    "stale": ("metadata.fresh", stale),
    "foreign-api": ("metadata.identity", top(api=7)),
    "odd-name": ("metadata.names", entry(aliases=["Odd Name"])),
    "no-summary": ("metadata.models", entry(summary="")),
    "no-licence": ("metadata.licence", entry(status="published", weights=[{"source": "hf://a/b", "files": [{"path": "m.safetensors"}]}], licence={"name": ""})),
    "branch": ("metadata.files", published(revision="main")),
    "escaping-path": ("metadata.files", published(files=[{"path": "../../model.safetensors"}])),
    "half-pinned": ("metadata.files", published(revision="0" * 40)),
    "no-provenance": ("metadata.embedded", entry(status="embedded", weights=[{"source": "embedded:py.typed", "files": []}])),
    "promised": ("metadata.provides", top(provides={"claims": ["faster-than-light"]})),
    "unknown-key": ("metadata.schema", entry(colour="blue")),
    # packaging
    "untyped": ("packaging.typed", remove("py.typed")),
    "no-readme": ("packaging.readme", edit("../pyproject.toml", 'readme = "README.md"\n', "")),
    "no-core": ("packaging.requirements", edit("../pyproject.toml", '"zoo-core~=0.1.0"', '"rich"')),
    "own-backend": ("packaging.static", edit("../pyproject.toml", BACKEND, BACKEND + 'backend-path = ["."]\n')),
    # imports and hooks
    "raises": ("imports.plugin", at_import("raise RuntimeError('broken on purpose')")),
    "heavy": ("imports.light", at_import("import numpy")),
    "loud": ("imports.quiet", at_import("print('hello from a plugin')")),
    "caller": ("imports.network", at_import(CONNECT)),
    "meddling": ("imports.state", at_import("import os\nos.environ['MEDDLING'] = '1'")),
    "double-precision": ("imports.state", edit("network.py", "from torch import nn\n", "from torch import nn\n\ntorch.set_default_dtype(torch.float64)\n")),
    "lost-target": ("hooks.targets", edit("loading.py", "def build_autoencoder", "def build_something_else")),
    "wrong-spec": ("hooks.specs", edit("plugin.py", "return [WeightsSpec(", "return [ConformanceSpec(name='x')] and [dict(")),
    # building and weights
    "miscounted": ("build.parameters", entry(parameters=1168)),
    "unseeded": ("build.seed", edit("loading.py", "request.weights.seed,", "torch.seed() % 1000,")),
    "takes-anything": ("build.options", edit("loading.py", "    if unknown:", "    if unknown and False:")),
    "meta-deaf": ("build.meta", edit("loading.py", "request.weights.seed, request.device", "request.weights.seed, 'cpu'")),
    "lenient": ("weights.strict", edit("loading.py", "load_into(network, source,", "load_into(network, source, strict=False,")),
    # task contract
    "wrong-shape": ("autoencoder.shapes", edit("model.py", ENCODER, ENCODER.replace("(images", "(images.repeat(1, 1, 1, 2)"))),
    "batch-mixer": ("autoencoder.batch", edit("model.py", ENCODER, ENCODER.replace("(images", "((images - images.mean(0))"))),
    "not-cropped": ("autoencoder.pictures", edit("model.py", "[0, :, :height, :width]", "[0]")),
    "swallows": ("autoencoder.inputs", edit("model.py", "        if options:\n", "        if options and False:\n")),
}

RUN = """
import json, sys
from zoo_core.testing import check_plugin
import zoo_core
for name in json.load(sys.stdin):
    results = check_plugin(name)
    print("RESULT " + json.dumps({"name": name, "core": zoo_core.__file__, "results": [[r.check, r.item, r.status, r.message] for r in results]}), flush=True)
"""


def install(project: Path, site: Path) -> None:
    """What an editable installation leaves: a dist-info made by hatchling (the source folder itself goes onto the path)."""
    from hatchling.builders.wheel import WheelBuilder

    data = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    info = site / f"{data['name'].replace('-', '_')}-{data['version']}.dist-info"
    info.mkdir()
    builder = WheelBuilder(str(project))
    (info / "METADATA").write_text(builder.config.core_metadata_constructor(builder.metadata))
    groups = data["entry-points"].items()
    (info / "entry_points.txt").write_text("".join(f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items()) for group, points in groups))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Plugin -> what the kit said, from one child process outside the tree."""
    base = tmp_path_factory.mktemp("outside")
    site = base / "site"
    ignore = shutil.ignore_patterns("__pycache__")
    for source in (ROOT / "zoo_core", ROOT / "kernels" / "zoo_kernels"):
        shutil.copytree(source, site / source.name, ignore=ignore)
    shutil.copy(ROOT / "zoo.py", site)
    projects = [create("good-paper", base)]
    for name, (_, mutate) in MUTANTS.items():
        project = create(f"bad-{name}", base)
        mutate(project / f"zoo_bad_{name.replace('-', '_')}")
        projects.append(project)
    for project in projects:
        install(project, site)
    foreign = base / "somewhere-else"
    foreign.mkdir()
    (foreign / "home").mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ZOO_")}
    environment |= {
        "PYTHONPATH": os.pathsep.join(map(str, [site, *projects])),
        "OMP_NUM_THREADS": "1",
        "HOME": str(foreign / "home"),
        "XDG_CONFIG_HOME": str(foreign / "home"),
    }
    names = [project.name.removeprefix("zoo-") for project in projects]
    done = subprocess.run([sys.executable, "-c", RUN], input=json.dumps(names), cwd=foreign, env=environment, text=True, capture_output=True, timeout=1800)
    found = [json.loads(line.removeprefix("RESULT ")) for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert done.returncode == 0 and len(found) == len(names), done.stderr[-3000:]
    assert all(Path(entry["core"]).is_relative_to(site) for entry in found), "the kit ran from the tree, not from outside"
    return {entry["name"]: entry for entry in found}


def test_the_good_plugin_passes(outcomes: dict[str, dict]) -> None:
    results = outcomes["good-paper"]["results"]
    assert not [result for result in results if result[2] not in ("passed", "skipped")]
    passed = {check for check, _, status, _ in results if status == "passed"}
    assert {check for check, _ in MUTANTS.values()} - {"metadata.files", "metadata.embedded"} <= passed, (
        "a check that a mutant fails must really run on the good plugin"
    )


@pytest.mark.parametrize("name", MUTANTS)
def test_a_bad_plugin_fails_exactly_its_check(outcomes: dict[str, dict], name: str) -> None:
    failed = {(check, message) for check, _, status, message in outcomes[f"bad-{name}"]["results"] if status not in ("passed", "skipped")}
    assert {check for check, _ in failed} == {MUTANTS[name][0]}, failed
