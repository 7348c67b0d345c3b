# ruff: noqa: E501 - sources of made-up plugins stand on one line; plain text is matched
"""The command line: exit codes, messages, plain output, what it imports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zoo_core.cli import main
from zoo_core.cli.commands import COMMANDS

HEAVY = ("torch", "numpy", "yaml", "omegaconf", "pluggy", "huggingface_hub", "transformers", "PIL")


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter; no bytecode, no user site."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=300)


LOADED = f"import sys; print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"


@pytest.mark.parametrize(
    ("what", "forbidden"),
    [
        ("import zoo", HEAVY),
        ("import zoo; zoo.list_models()", HEAVY),
        ("from zoo_core.cli import main; main(['list'])", (*HEAVY, "typer", "rich", "importlib.metadata")),
        ("from zoo_core.cli import main; main(['list', '--json'])", (*HEAVY, "typer", "rich")),
        ("from zoo_core.cli import main; main(['search', 'e'])", (*HEAVY, "typer", "rich")),
        ("from zoo_core.cli import main; main(['plugins'])", (*HEAVY, "typer", "rich")),
        ("from zoo_core.cli import main; main(['__complete', 'run', ''])", (*HEAVY, "typer", "rich")),
        ("from zoo_core.cli import main; main(['--version'])", (*HEAVY, "typer", "rich", "dataclasses", "json")),
        ("from zoo_core.cli import main; main(['--help'])", ("torch", "numpy", "omegaconf", "pluggy", "huggingface_hub")),
    ],
)
def test_front_paths_import_nothing_heavy(plugin, site: Path, what: str, forbidden: tuple[str, ...]) -> None:
    plugin("installed", plugin="raise RuntimeError('must not be imported')\n")
    # a checkout whose YAML was edited but not compiled is read as YAML: only compiled plugins count here
    code = f"import sys; sys.path.insert(0, {str(site)!r}); before = set(sys.modules)\n{what}\nprint([n for n in {forbidden!r} if n in sys.modules and n not in before], file=sys.stderr)"
    done = python(code, ZOO_PLUGINS="installed")
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "[]"


def test_lazy_facade_has_what_it_promises() -> None:
    import zoo
    import zoo_core

    for name in zoo_core.PUBLIC:
        assert getattr(zoo, name) is getattr(zoo_core, name)
    with pytest.raises(AttributeError, match="module 'zoo' has no attribute 'nothing'"):
        zoo.nothing  # noqa: B018


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name: str, capsys) -> None:
    assert main([name, "--help"]) == 0
    assert "Usage: zoo" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["lst"], 2, "did you mean: list"),
        (["info", "no-such-model-at-all"], 2, "is unknown"),
        (["info", "Sana"], 2, "lower case"),
        (["run", "no-such-model-at-all", "x"], 2, "is unknown"),
        (["fit", "no-such-model-at-all"], 2, "is unknown"),
        (["list", "--task", "caption"], 2, "task 'caption' is unknown"),
        (["list", "--max-params", "many"], 2, "is not a number"),
        (["list", "--tusk"], 2, "No such option"),
        (["list", "stray"], 2, "unexpected extra argument"),
        (["search", "zzzzqqqq"], 1, "nothing matches"),
        (["completion", "tcsh"], 2, "one of bash, zsh, fish"),
        (["plugins", "disable", "no-such"], 2, "not installed"),
        (["plugins", "prefer", "x", "y"], 2, "KIND/NAME"),
        (["registry", "build", "/no/such/folder"], 2, "is not a folder"),
    ],
)
def test_fault_1_user_errors_have_no_traceback_and_stable_exit_codes(site: Path, registry, capsys, arguments: list[str], code: int, text: str) -> None:
    registry()
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert text in captured.err and "Traceback" not in captured.err and captured.out == ""


def test_debug_shows_the_traceback(site: Path, registry, monkeypatch) -> None:
    from zoo_core.errors import UnknownModelError

    registry()
    monkeypatch.setenv("ZOO_DEBUG", "1")
    with pytest.raises(UnknownModelError):
        main(["info", "no-such-model-at-all"])


def test_list_and_info_show_installed_and_not_installed(plugin, registry, capsys) -> None:
    plugin("here")
    registry()
    assert main(["list", "--json"]) == 0
    cards = {card["name"]: card for card in json.loads(capsys.readouterr().out)}
    assert cards["here-model"]["installed"] is True and len(cards) > 5
    assert main(["list", "--plugin", "here"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].startswith("here-model  text-to-image") and "\x1b" not in "".join(lines)
    assert main(["info", "here-model", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plugin"] == "here"


def test_fault_8_a_broken_plugin_is_one_warning_in_the_list_and_explained(plugin, registry, capsys) -> None:
    plugin("corrupt", fragment="{")
    registry()
    assert main(["list"]) == 0
    assert "warning: corrupt: cannot be used (zoo plugins tells why)" in capsys.readouterr().err
    assert main(["plugins"]) == 0
    assert "registry.json is not JSON" in capsys.readouterr().out


def test_fast_path_and_typer_print_the_same(site: Path, plugin, registry, capsys) -> None:
    from zoo_core.cli.app import run

    plugin("same")
    registry()
    for arguments in (["list", "--plugin", "same"], ["info", "same-model"], ["search", "same-model"], ["plugins", "--json"]):
        assert main(arguments) == 0
        fast = capsys.readouterr().out
        assert run(arguments) == 0
        assert capsys.readouterr().out == fast


def test_enable_disable_and_prefer(plugin, registry, capsys) -> None:
    plugin("one")
    registry()
    assert main(["plugins", "disable", "x-one"]) == 0
    assert registry().plugins()["one"].state == "blocked"
    assert main(["plugins"]) == 0 and "switched off by plugins.disable" in capsys.readouterr().out
    assert main(["plugins", "enable", "one"]) == 0
    assert registry().plugins()["one"].state == "found"
    assert main(["plugins", "prefer", "models/x", "one"]) == 0
    assert "models/x belongs to x-one" in capsys.readouterr().out


def test_doctor_explains_everything_wrong(plugin, registry, capsys, monkeypatch, tmp_path: Path) -> None:
    plugin("corrupt", fragment="{")
    plugin("bad", plugin="raise RuntimeError('boom')\n")
    plugin("twice", version="1.0")
    plugin("twice", version="2.0")
    plugin("checks", plugin="from zoo_core import hookimpl\n\n@hookimpl\ndef zoo_doctor():\n    return [('warn', 'it is Monday', 'wait')]\n")
    plugin("raises", plugin="from zoo_core import hookimpl\n\n@hookimpl\ndef zoo_doctor():\n    raise ValueError('mine')\n")
    for name in ("left", "right"):
        plugin(name, fragment={"models": {"contested": {"task": "causal-lm", "build": "a:b"}}})
    registry()
    assert main(["doctor", "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)
    text = "\n".join(f"{f['level']} {f['what']} {f['hint']}" for f in findings)
    for expected in ("fail plugin corrupt", "RuntimeError: boom", "is also listed at", "warn checks: it is Monday wait", "zoo_doctor hook raised ValueError: mine",
                     "fail models/contested is claimed by x-left and x-right", "torch "):  # fmt: skip
        assert expected in text, expected


def test_doctor_finds_foreign_modules(tmp_path: Path) -> None:
    (tmp_path / "zoo.py").write_text("rpc = 1\n")
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom zoo_core.cli.doctor import modules\nfor f in modules(): print(f.level, f.what)"
    out = python(code).stdout
    assert "fail another package owns the name 'zoo'" in out and "warn a module named 'kernels'" in out


def test_completion(plugin, registry) -> None:
    from zoo_core.cli.completion import complete

    plugin("done")
    registry()
    assert complete(["pl"]) == ["plugins"] and complete(["run", "done-"]) == ["done-model"]
    assert "--task" in complete(["list", "--"]) and "text-to-image" in complete(["list", "--task", "te"])
    assert "done" in complete(["parity", "do"]) and "embedded" in complete(["list", "--status", ""])


def test_plugin_commands(plugin, registry, capsys) -> None:
    code = "from zoo_core import hookimpl\nfrom zoo_core.specs import CommandSpec\n\n@hookimpl\ndef zoo_commands():\n    return [CommandSpec(name='hello', run='x_cmd.hello:run')]\n"
    plugin(
        "cmd",
        fragment={"provides": {"commands": ["hello"]}},
        plugin=code,
        files={"hello.py": "def run(arguments):\n    print('hello', *arguments)\n    return 1\n"},
    )
    registry()
    assert main(["cmd", "hello", "you", "--loud"]) == 1
    assert capsys.readouterr().out == "hello you --loud\n"
    assert main(["cmd"]) == 0 and "commands of cmd: hello" in capsys.readouterr().out
    assert main(["cmd", "helo"]) == 2 and "did you mean: hello" in capsys.readouterr().err


ZOO = "import sys; from zoo_core.cli import main; sys.exit(main())"


def test_fault_29_a_pipe_closed_early_is_clean() -> None:
    process = subprocess.Popen([sys.executable, "-c", ZOO, "list", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(60) == 0 and "Traceback" not in errors and "Exception ignored" not in errors


@pytest.mark.parametrize("environment", [{"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2"}, {"TZ": "Asia/Kathmandu"}, {"LC_ALL": "de_DE.UTF-8"}, {"PYTHONOPTIMIZE": "1"}, {"NO_COLOR": "1"},
                                         {"TERM": "dumb"}, {"PYTHONIOENCODING": "utf-8", "LC_ALL": "C"}])  # fmt: skip
def test_fault_29_output_does_not_depend_on_the_environment(environment: dict[str, str]) -> None:
    here = python(ZOO, "list")
    there = python(ZOO, "list", **environment)
    assert there.returncode == 0 and there.stdout == here.stdout and "\x1b" not in there.stdout


def test_colours_only_on_a_terminal_without_no_color(monkeypatch) -> None:
    from zoo_core.cli import common

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert common.style("x", "1") == "\x1b[1mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert common.style("x", "1") == "x"


def test_fault_28_ctrl_c_ends_with_130_and_leaves_no_file(site: Path, plugin, tmp_path: Path) -> None:
    slow = "import time\nfrom zoo_core.interfaces import Model\n\nclass Slow(Model):\n    def generate(self, prompt, *, seed=None):\n        print('ready', flush=True)\n        time.sleep(60)\n\ndef build(r):\n    import torch\n    return Slow(r.spec, r.config, {'n': torch.nn.Linear(1, 1)}, r.report)\n"
    plugin("slow", fragment={"models": {"slow-model": {"task": "text-to-image", "build": "x_slow.slow:build"}}}, files={"slow.py": slow})
    code = f"import sys; sys.path.insert(0, {str(site)!r}); from zoo_core.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "run", "slow-model", "x", "--weights", "random", "-o", str(tmp_path / "out" / "x.png")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    assert not list(tmp_path.glob("out/*"))


def test_fault_28_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    from zoo_core.cli.common import write_atomically
    from zoo_core.errors import InputError

    target = tmp_path / "a.txt"
    write_atomically(target, lambda path: Path(path).write_text("old"))

    def interrupted(path: str) -> None:
        Path(path).write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(target, interrupted)
    assert target.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write_atomically(tmp_path / "file" / "x", lambda path: None)


def test_version_is_fast_and_plain() -> None:
    begin = time.perf_counter()
    assert python(ZOO, "--version").stdout.startswith("zoo 0.")
    assert time.perf_counter() - begin < 5  # the measured figure is in benchmarks/results/startup.json


def test_the_front_door_runs_as_a_module() -> None:
    """``python -m zoo`` (and so ``torchrun -m zoo``) is the command, errors and exit codes included."""
    done = subprocess.run([sys.executable, "-m", "zoo", "--version"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.split()[0]) == (0, "zoo")
    wrong = subprocess.run([sys.executable, "-m", "zoo", "info", "no-such-model-at-all"], capture_output=True, text=True, timeout=120)
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr
