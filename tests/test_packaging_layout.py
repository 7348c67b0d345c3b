"""Rules of the folder layout and of the pyproject files."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = sorted(file.parent for file in ROOT.glob("plugins/*/pyproject.toml"))


@pytest.mark.parametrize("folder", ["kernels", "plugins", "tests", "examples"])
def test_project_folders_are_no_packages(folder: str) -> None:
    """A package called ``kernels`` would shadow the published one of that name (and break libraries that look for it)."""
    assert not (ROOT / folder / "__init__.py").exists()


def test_plugin_test_folders_are_no_packages() -> None:
    assert not list(ROOT.glob("plugins/*/tests/__init__.py")) and not list(ROOT.glob("plugins/*/__init__.py"))


def test_uv_sources_name_every_member() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    sources = data["tool"]["uv"]["sources"]
    wanted = {tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"] for folder in [ROOT, ROOT / "kernels", *PLUGINS]}
    assert wanted <= set(sources), f"add to [tool.uv.sources]: {sorted(wanted - set(sources))}"
    assert all(sources[name] == {"workspace": True} for name in wanted)


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_plugin_projects_are_static_and_plain_hatchling(folder: Path) -> None:
    data = tomllib.loads((folder / "pyproject.toml").read_text())
    project = data["project"]
    assert data["build-system"] == {"requires": ["hatchling>=1.27"], "build-backend": "hatchling.build"}
    assert "dynamic" not in project and "hooks" not in data.get("tool", {}).get("hatch", {}).get("metadata", {})
    lines = [*project["dependencies"], *(line for extra in project.get("optional-dependencies", {}).values() for line in extra)]
    assert not [line for line in lines if "@" in line], "file references belong to nobody's pyproject"
    assert any(line.startswith("zoo-core~=") for line in lines)
    package = folder / f"zoo_{folder.name}"
    assert project["name"] == f"zoo-{folder.name.replace('_', '-')}" and (package / "py.typed").exists()
    assert list(project["entry-points"]["zoo.plugins"].items()) == [(folder.name.replace("_", "-"), f"zoo_{folder.name}.plugin")]
    assert (folder / "README.md").exists() and (folder / "LICENSE").exists()


def test_the_core_stays_small() -> None:
    """The size that docs/architecture.md names; rooms that stand beside the core (command line, kit, evaluation...) do not count."""
    beside = {"cli", "testing", "evaluation", "training", "samplers", "datasets", "scaffold"}
    modules = [file for file in (ROOT / "zoo_core").rglob("*.py") if file.name != "__init__.py" and file.relative_to(ROOT / "zoo_core").parts[0] not in beside]
    assert len(modules) <= 45, "merge two modules that do one job before adding one"


def test_no_file_is_long() -> None:
    folders = [ROOT / "zoo_core", ROOT / "kernels" / "zoo_kernels", *(folder / f"zoo_{folder.name}" for folder in PLUGINS)]
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for folder in folders for file in folder.rglob("*.py")}
    assert not {str(file): length for file, length in lengths.items() if length > 400}


def imported(file: Path) -> set[str]:
    """Top-level names of all modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def test_imports_only_go_down() -> None:
    """Core knows no paper, kernels know neither, a plugin imports no other plugin (``zoo_llm`` is a floor under the language-model papers)."""
    plugins = {f"zoo_{folder.name}" for folder in PLUGINS}
    wrong = []
    for file in ROOT.glob("zoo_core/**/*.py"):
        wrong += [f"{file.relative_to(ROOT)} imports {name}" for name in imported(file) & plugins]
    for file in ROOT.glob("kernels/zoo_kernels/**/*.py"):
        wrong += [f"{file.relative_to(ROOT)} imports {name}" for name in imported(file) & (plugins | {"zoo_core", "zoo"})]
    for folder in PLUGINS:
        allowed = {f"zoo_{folder.name}", "zoo_llm"}
        for file in folder.glob("zoo_*/**/*.py"):
            wrong += [f"{file.relative_to(ROOT)} imports {name}" for name in imported(file) & (plugins - allowed)]
    assert not wrong


def test_third_party_example_is_not_part_of_the_workspace() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert not [pattern for pattern in data["tool"]["uv"]["workspace"]["members"] if pattern.startswith("examples")]


def test_no_machine_paths_in_tracked_text() -> None:
    """Nothing in the project names a folder of the machine it was written on."""
    pattern = re.compile(r"(?<![\w.])/(?:work|opt|root)/[a-z]")
    files = [
        file
        for pattern_ in (
            "*.md",
            "*.toml",
            "*.py",
            "docs/**/*.md",
            "zoo_core/**/*.py",
            "build_backend/*.py",
            "scripts/*",
            "kernels/**/*.py",
            "plugins/**/*.py",
            "plugins/**/*.md",
            "plugins/**/*.yaml",
        )
        for file in ROOT.glob(pattern_)
    ]
    assert files and not [
        str(file.relative_to(ROOT)) for file in files if file.is_file() and pattern.search(file.read_text(encoding="utf-8", errors="replace"))
    ]


def test_readme_names_every_plugin_and_every_link_leads_somewhere() -> None:
    text = (ROOT / "README.md").read_text()
    for folder in PLUGINS:
        assert f"`{folder.name.replace('_', '-')}`" in text, f"README.md does not name the plugin {folder.name}"
    for page in ("README.md", "CONTRIBUTING.md", "docs/authors.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text()):
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target} does not exist"


def test_documented_commands_exist() -> None:
    """``zoo ...`` commands in the pages are commands of the program, and ``./dev`` knows what the README asks of it."""
    from zoo_core.cli.commands import COMMANDS

    pages = "\n".join((ROOT / page).read_text() for page in ("README.md", "CONTRIBUTING.md", "docs/authors.md"))
    used = set(re.findall(r"(?:^    |`)zoo ([a-z][a-z-]*)", pages, re.MULTILINE))
    assert used and used <= set(COMMANDS), used - set(COMMANDS)
    script = (ROOT / "dev").read_text()
    assert all(f"\n    {word})" in script for word in re.findall(r"\./dev (\w+)", pages))
    assert "exec ./dev test" in (ROOT / ".ci" / "run").read_text()


def test_the_setup_script_is_valid_and_knows_the_projects() -> None:
    import os
    import subprocess

    subprocess.run(["bash", "-n", str(ROOT / "dev")], check=True)
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)
    assert os.access(ROOT / "dev", os.X_OK) and os.access(ROOT / ".ci" / "run", os.X_OK)
    done = subprocess.run([str(ROOT / "dev"), "no-such-command"], capture_output=True, text=True)
    assert done.returncode == 2 and "./dev test" in done.stdout
