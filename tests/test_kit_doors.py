"""The kit's doors (function, command, pytest option), its verdicts, and ``zoo new-plugin``."""

from __future__ import annotations

import doctest
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zoo_core.errors import InputError, NameSyntaxError, PluginNotInstalledError
from zoo_core.scaffold import create
from zoo_core.testing import CheckResult, Skipped, badge, check_plugin, results, to_json
from zoo_core.testing.checks import Check, all_checks
from zoo_core.testing.runner import run_checks, run_one

ROOT = Path(__file__).resolve().parents[1]


def verdict(
    run: Any, declared: dict[str, str] | None = None, items: list[str] | None = None, failed: list[str] | None = None, needs: tuple[str, ...] = ()
) -> list[CheckResult]:
    check = Check("group.what", run, (lambda subject: items) if items is not None else None, needs)
    return list(run_one(SimpleNamespace(), check, failed or [], declared))  # type: ignore[arg-type]


def fails(*_: Any) -> None:
    raise AssertionError("it is wrong")


def test_verdicts() -> None:
    assert [r.status for r in verdict(lambda subject: None)] == ["passed"]
    assert [(r.status, r.message) for r in verdict(fails)] == [("failed", "it is wrong")]
    assert [(r.status, r.message) for r in verdict(lambda subject: 1 / 0)] == [("failed", "ZeroDivisionError: division by zero")]

    def skips(subject: Any) -> None:
        raise Skipped("no GPU")

    assert [(r.status, r.message) for r in verdict(skips)] == [("skipped", "no GPU")]
    assert [(r.status, r.message) for r in verdict(fails, needs=("other.",), failed=["other.thing"])] == [("skipped", "needs other.thing")]


def test_declared_failures() -> None:
    declared = {"group.what[b]": "known limit"}
    found = verdict(fails, declared, items=["a", "b"])
    assert [(r.item, r.status, r.ok) for r in found] == [("a", "failed", False), ("b", "expected-failure", True)]
    assert "known limit" in found[1].message and "it is wrong" in found[1].message
    (passed,) = verdict(lambda subject: None, {"group.what": "known limit"})
    assert passed.status == "unexpected-pass" and not passed.ok


def test_names_of_checks_are_checked() -> None:
    subject: Any = SimpleNamespace(conformance=SimpleNamespace(expected_failures={}))
    with pytest.raises(InputError, match=r"no\.such"):
        list(run_checks(subject, {"no.such": "reason"}))
    with pytest.raises(InputError, match="none"):
        list(run_checks(subject, only=["none.*"]))
    with pytest.raises(PluginNotInstalledError, match="no-such-plugin"):
        check_plugin("no-such-plugin")


def test_every_check_says_what_it_demands() -> None:
    checks = all_checks()
    assert len(checks) >= 55 and all(check.summary.endswith((".", ":")) or check.summary for check in checks)
    known = {check.name for check in checks}
    for check in checks:
        assert all(need in known or any(name.startswith(need) for name in known) for need in check.needs), check.name


def test_outputs() -> None:
    found = [CheckResult("a.b"), CheckResult("c.d", "model", "failed", "why")]
    document = json.loads(to_json("my-paper", found))
    assert document["passed"] is False and document["counts"]["failed"] == 1 and document["results"][1]["item"] == "model"
    assert "Failed: `c.d` (why)" in badge("my-paper", found)
    assert doctest.testmod(results).failed == 0


def test_the_pytest_plugin_imports_nothing_of_the_kit() -> None:
    heavy = {"torch", "numpy", "yaml", "zoo_core.testing.runner", "zoo_core.testing.subject", "zoo_core.specs"}
    code = f"import sys, zoo_core.testing.pytest_plugin\nbad = {heavy} & set(sys.modules)\nassert not bad, bad"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["My-Paper", "1paper", "paper--x", "core", "kernels", "../x", "", "zoo-"])
def test_illegal_plugin_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(NameSyntaxError):
        create(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    create("zoo-my-paper", tmp_path)
    with pytest.raises(InputError, match="exists"):
        create("my-paper", tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        create("my-paper", tmp_path / "nowhere")
    assert [path.name for path in tmp_path.iterdir()] == ["zoo-my-paper"]


def test_made_files_are_tidy(tmp_path: Path) -> None:
    project = create("my-paper", tmp_path, author="A. N. Author")
    text = "".join(path.read_text() for path in project.rglob("*") if path.is_file())
    assert "@@" not in text and "A. N. Author" in text
    if importlib.util.find_spec("ruff"):
        for command in (["check"], ["format", "--check"]):
            done = subprocess.run(
                [sys.executable, "-m", "ruff", *command, "--config", str(ROOT / "pyproject.toml"), str(project)], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def new_plugin(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, str]]:
    """A plugin made by the command and installed editable into an environment of its own: project, interpreter, environment variables."""
    if importlib.util.find_spec("hatchling") is None or importlib.util.find_spec("editables") is None:
        pytest.skip("hatchling and editables are not installed beside pytest")
    base = tmp_path_factory.mktemp("new-plugin")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]), "OMP_NUM_THREADS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run([sys.executable, "-m", "zoo_core.cli", "new-plugin", "shiny-paper", "--dir", str(base)], check=True, env=env, stdout=subprocess.DEVNULL)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(base / "venv")], check=True)
    python = base / "venv" / "bin" / "python"
    site = next((base / "venv" / "lib").glob("python*/site-packages"))
    site.joinpath("host.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-e",
        str(base / "zoo-shiny-paper"),
    ]
    done = subprocess.run(install, env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return base / "zoo-shiny-paper", python, env


def test_a_new_plugin_is_discovered(new_plugin: tuple[Path, Path, dict[str, str]]) -> None:
    project, python, env = new_plugin
    done = subprocess.run([python, "-m", "zoo_core.cli", "list", "--json"], cwd=project.parent, env=env, text=True, capture_output=True, check=True)
    assert "shiny-paper-base" in done.stdout
    code = "import zoo; m = zoo.load('shiny-paper-base', weights='random', device='cpu'); import torch; print(tuple(m.encode(torch.zeros(1, 3, 8, 8)).shape))"
    done = subprocess.run([python, "-c", code], cwd=project.parent, env=env, text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "(1, 12, 2, 2)"


def test_a_new_plugin_passes_by_command_and_by_pytest(new_plugin: tuple[Path, Path, dict[str, str]]) -> None:
    project, python, env = new_plugin
    done = subprocess.run([python, "-m", "zoo_core.cli", "conformance", "shiny-paper", "--json"], cwd=project.parent, env=env, text=True, capture_output=True)
    report = json.loads(done.stdout)
    assert not [result for result in report["results"] if result["status"] not in ("passed", "skipped")]
    assert done.returncode == 0 and report["passed"] and report["counts"]["passed"] >= 30 and report["counts"]["failed"] == 0
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--zoo-plugin", "shiny_paper", "--zoo-check", "metadata.*", "--zoo-check", "imports.*"]
    done = subprocess.run(command, cwd=project.parent / "venv", env=env, text=True, capture_output=True)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout + done.stderr


def test_the_pytest_door_reports_failures(new_plugin: tuple[Path, Path, dict[str, str]]) -> None:
    project, python, env = new_plugin
    marker = project / "zoo_shiny_paper" / "py.typed"
    marker.unlink()
    try:
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--zoo-plugin", "shiny-paper", "--zoo-check", "packaging.*"]
        done = subprocess.run(command, cwd=project.parent / "venv", env=env, text=True, capture_output=True)
    finally:
        marker.touch()
    assert done.returncode == 1 and "py.typed is missing" in done.stdout and "1 failed" in done.stdout, done.stdout
