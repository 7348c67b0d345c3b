"""Installing from a checkout with plain pip and with uv; no network, no torch: third-party requirements are met by empty wheels."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILD_TOOLS = ("hatchling", "pathspec", "packaging", "pluggy", "trove_classifiers", "editables")
missing = [name for name in BUILD_TOOLS if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"the build tools {missing} are not installed beside pytest (pip install hatchling editables)")


def projects(root: Path) -> dict[str, dict]:
    """Distribution name -> pyproject data of every distribution of a checkout."""
    files = [root / "pyproject.toml", root / "kernels" / "pyproject.toml", *sorted(root.glob("plugins/*/pyproject.toml"))]
    return {(data := tomllib.loads(file.read_text()))["project"]["name"]: data for file in files}


def third_party(root: Path) -> dict[str, str]:
    """All requirements, optional ones included, that are no distribution of this checkout: name -> the highest version that they name or allow."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    ours = projects(root)
    lines: list[str] = []
    for data in ours.values():
        project = data["project"]
        lines += project.get("dependencies", [])
        for extra in project.get("optional-dependencies", {}).values():
            lines += extra
        for group in data.get("dependency-groups", {}).values():
            lines += [line for line in group if isinstance(line, str)]
    lines += ours["zoo-core"]["tool"]["hatch"]["metadata"]["hooks"]["custom"]["dependencies"]
    wanted: dict[str, list[Requirement]] = {}
    for line in lines:
        wanted.setdefault(re.match(r"[A-Za-z0-9._-]+", line).group().lower().replace("_", "-"), []).append(Requirement(line))
    versions = {}
    for name in wanted.keys() - ours.keys():
        named = {item.version.removesuffix(".*") for requirement in wanted[name] for item in requirement.specifier} | {"99.0"}
        fitting = [version for version in named if all(requirement.specifier.contains(version) for requirement in wanted[name])]
        versions[name] = max(fitting, key=Version)
    return versions


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout without big files, so that nothing is written into the real one."""
    target = tmp_path_factory.mktemp("packaging") / "checkout"
    ignore = shutil.ignore_patterns(
        "__pycache__", "*.safetensors", "*.npz", ".git", ".venv", "runs", "docs", "tests", "benchmarks", "uv.lock", "*.egg-info", "dist"
    )
    target.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "registry.yaml", "zoo.py", "zoo.pyi"):
        shutil.copy(ROOT / name, target)
    for name in ("build_backend", "zoo_core", "kernels"):
        shutil.copytree(ROOT / name, target / name, ignore=ignore)
    for project in ROOT.glob("plugins/*/pyproject.toml"):
        shutil.copytree(project.parent, target / "plugins" / project.parent.name, ignore=ignore)
    return target


@pytest.fixture(scope="session")
def offline(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> dict[str, str]:
    """Environment for pip and uv: build tools from this interpreter, third-party wheels that are empty, no index."""
    folder = tmp_path_factory.mktemp("offline")
    tools, wheels = folder / "tools", folder / "wheels"
    tools.mkdir()
    wheels.mkdir()
    for name in BUILD_TOOLS:
        (tools / name).symlink_to(Path(importlib.util.find_spec(name).origin).parent)
    for name, version in third_party(checkout).items():
        info = f"{name.replace('-', '_')}-{version}.dist-info"
        with zipfile.ZipFile(wheels / f"{info.removesuffix('.dist-info')}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "UV_", "VIRTUAL_ENV", "PYTHONPATH", "ZOO_"))}
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    uv = {"UV_NO_CONFIG": "1", "UV_NO_INDEX": "1", "UV_OFFLINE": "1", "UV_FIND_LINKS": str(wheels), "UV_CACHE_DIR": str(folder / "uv-cache")}
    return {**keep, **pip, **uv, "PYTHONPATH": str(tools)}


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Path]:
    """A fresh, empty virtual environment; yields its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    yield tmp_path / "venv" / "bin" / "python"
    shutil.rmtree(tmp_path / "venv")


def run(*command: str | Path, cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, f"{' '.join(str(part) for part in command)}\n{done.stdout[-3000:]}"
    return done.stdout


def installed(python: Path) -> dict[str, bool]:
    """Zoo distributions of an environment -> whether the installation is editable."""
    code = (
        "import json, importlib.metadata as m\n"
        "d = {x.metadata['Name']: json.loads(x.read_text('direct_url.json') or '{}').get('dir_info', {}).get('editable', False) for x in m.distributions()}\n"
        "print(json.dumps({k: v for k, v in d.items() if k.startswith('zoo-')}))"
    )
    return json.loads(subprocess.run([python, "-c", code], check=True, text=True, capture_output=True).stdout)


def pip_install(python: Path, *arguments: str, checkout: Path, env: dict[str, str]) -> None:
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-build-isolation", "--no-compile", *arguments, cwd=checkout, env=env)


def expected(checkout: Path, extra: str) -> set[str]:
    """What an extra must install, worked out here independently of the build hook: the plugin, what it depends on and needs, and core and kernels."""
    owners = {name: data for name, data in projects(checkout).items() if "zoo.plugins" in data["project"].get("entry-points", {})}
    wanted, queue = {"zoo-core", "zoo-kernels"}, [name for name, data in owners.items() if extra in data["project"]["entry-points"]["zoo.plugins"]]
    while queue:
        name = queue.pop()
        if name not in wanted:
            wanted.add(name)
            queue += [other for other in owners if any(line.startswith(other) for line in owners[name]["project"]["dependencies"])]
            queue += [f"zoo-{need}" for need in owners[name].get("tool", {}).get("zoo", {}).get("needs", [])]
    return wanted


def some_extra(checkout: Path) -> str:
    """``sana`` (which asks for another plugin) once it is there, else any plugin."""
    extras = [extra for data in projects(checkout).values() for extra in data["project"].get("entry-points", {}).get("zoo.plugins", {})]
    return "sana" if "sana" in extras else sorted(extras)[0]


@pytest.mark.parametrize("form", ["folder", "editable"])
def test_pip_installs_one_plugin_of_a_checkout(checkout: Path, offline: dict[str, str], environment: Path, form: str) -> None:
    extra = some_extra(checkout)
    pip_install(environment, *([f".[{extra}]"] if form == "folder" else ["-e", f".[{extra}]"]), checkout=checkout, env=offline)
    found = installed(environment)
    assert set(found) == expected(checkout, extra)
    assert [name for name, editable in found.items() if editable] == (["zoo-core"] if form == "editable" else [])
    names = run(
        environment,
        "-c",
        "import zoo, zoo_core, sys; assert 'torch' not in sys.modules; print(zoo.__all__)",
        cwd=checkout.parent,
        env={"PATH": os.environ["PATH"]},
    )
    assert "load" in names


def test_pip_installs_everything_editable_by_the_contributors_line(checkout: Path, offline: dict[str, str], environment: Path) -> None:
    folders = [checkout / "kernels", *(file.parent for file in checkout.glob("plugins/*/pyproject.toml"))]
    pip_install(
        environment, "-e", ".", *[part for folder in folders for part in ("-e", str(folder))], checkout=checkout, env={**offline, "ZOO_RELEASE_BUILD": "1"}
    )
    found = installed(environment)
    assert set(found) == set(projects(checkout)) and all(found.values())


def test_uv_sync_installs_one_plugin_editable_with_a_portable_lock_file(checkout: Path, offline: dict[str, str], tmp_path: Path) -> None:
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if uv is None:
        pytest.skip("uv is not installed")
    extra = some_extra(checkout)
    environment = tmp_path / "venv"
    env = {**offline, "UV_PROJECT_ENVIRONMENT": str(environment)}
    run(uv, "sync", "--quiet", "--no-dev", "--extra", extra, "--no-build-isolation", "--python", sys.executable, cwd=checkout, env=env)
    found = installed(environment / "bin" / "python")
    assert set(found) == expected(checkout, extra) and all(found.values())
    lock = (checkout / "uv.lock").read_text()
    own = [line for line in lock.splitlines() if "editable = " in line or "directory = " in line]
    assert own and not any("file://" in line or str(checkout) in line for line in own)


def metadata_of(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))).decode()


@pytest.mark.parametrize("tool", ["build", "uv"])
def test_built_distributions_have_clean_metadata(checkout: Path, offline: dict[str, str], tmp_path: Path, tool: str) -> None:
    if tool == "build":
        pytest.importorskip("build")
        command: list[str | Path] = [sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, "."]
    else:
        uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
        if uv is None:
            pytest.skip("uv is not installed")
        command = [uv, "build", "--quiet", "--no-build-isolation", "--python", sys.executable, "--out-dir", tmp_path, "."]
    run(*command, cwd=checkout, env=offline if tool == "uv" else {**offline, "PYTHONPATH": ""})
    wheel, sdist = next(tmp_path.glob("*.whl")), next(tmp_path.glob("*.tar.gz"))
    metadata = metadata_of(wheel)
    assert " @ " not in metadata and "file:" not in metadata
    assert set(re.findall(r"Provides-Extra: (\S+)", metadata)) == {
        extra for data in projects(checkout).values() for extra in data["project"].get("entry-points", {}).get("zoo.plugins", {})
    } | {"all"}
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
        assert not any(name.startswith(("plugins/", "kernels/")) for name in names)
        for member in archive.getmembers():
            assert member.size > 4_000_000 or not member.isfile() or str(checkout).encode() not in archive.extractfile(member).read(), member.name
    assert subprocess.run([sys.executable, ROOT / "scripts" / "check_dist.py", wheel, sdist], check=False).returncode == 0


def test_a_wheel_built_straight_from_a_checkout_is_refused_for_publishing(checkout: Path, offline: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("build")
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, ".", cwd=checkout, env={**offline, "PYTHONPATH": ""})
    wheel = next(tmp_path.glob("*.whl"))
    assert " @ file:" in metadata_of(wheel)
    done = subprocess.run([sys.executable, ROOT / "scripts" / "check_dist.py", wheel], check=False, text=True, capture_output=True)
    assert done.returncode == 1 and "zoo-kernels @ file:" in done.stderr
