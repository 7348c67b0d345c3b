"""zoo kernels: what is printed, exit codes, JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zoo_core.cli import main


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    monkeypatch.delenv("ZOO_KERNELS", raising=False)


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "list", "--json", "--device", "cpu"]) == 0
    rows = json.loads(capsys.readouterr().out)["implementations"]
    by_name = {(row["op"], row["implementation"]): row for row in rows}
    assert {op for op, _ in by_name} >= {"linear_attention", "rms_norm", "rotary", "nearest_code"}
    assert by_name["rms_norm", "cpu"]["reasons"] == [] and by_name["rms_norm", "triton"]["reasons"]
    assert main(["kernels", "list", "--device", "cpu"]) == 0
    assert "runs here" in capsys.readouterr().out


def test_explain_says_why_not(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["kernels", "explain", "linear_attention", "--device", "cpu", "--hint", "head_dim=24"]) == 0
    out = capsys.readouterr().out
    assert "head_dim 24 is not a power of two" in out
    assert any(line.split()[:2] == ["chosen", "cpu"] for line in out.splitlines())
    monkeypatch.setenv("ZOO_KERNELS", "linear_attention=reference")
    assert main(["kernels", "explain", "linear_attention", "--device", "cpu", "--json"]) == 0
    [choice] = json.loads(capsys.readouterr().out)["choices"]
    assert (choice["chosen"], choice["pinned_by"]) == ("reference", "ZOO_KERNELS")


BOUND = {"toy-model": {"task": "text-to-image", "build": "x_toy.model:build", "precision": {"default": "bfloat16"},
                       "kernels": {"linear_attention": {"head_dim": 24}, "rms_norm": {}}},
         "toy-plain": {"task": "text-to-image", "build": "x_toy.model:build"}}  # fmt: skip


def test_explain_a_model(plugin, registry, capsys: pytest.CaptureFixture[str]) -> None:
    plugin("toy", fragment={"models": BOUND})
    registry()
    assert main(["kernels", "explain", "toy-model", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "toy-model (plugin toy) binds 2 operations when it is built; on cpu in bfloat16:"
    assert [line.split()[0] for line in lines if not line.startswith(" ")][1:] == ["linear_attention", "rms_norm"]
    assert sum(line.split()[:2] == ["chosen", "cpu"] for line in lines) == 2
    assert "head_dim=24" in lines[1] and any("head_dim 24 is not a power of two" in line for line in lines), "the hints of the entry count"
    assert main(["kernels", "explain", "toy-model", "--device", "cpu", "--dtype", "float32", "--hint", "head_dim=32", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["model"], data["plugin"], data["dtype"]) == ("toy-model", "toy", "float32")
    assert data["choices"][0]["hints"] == {"head_dim": 32} and not any("power of two" in r for r in data["choices"][0]["implementations"]["triton"])
    assert main(["kernels", "explain", "toy-plain", "--device", "cpu"]) == 0
    assert "declares no operations" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["explain", "rms_nrom"], ["rms_nrom", "rms_norm"]), (["explain", "rms_norm", "--dtype", "float3"], ["float3"]), (["bench", "--op", "nope"], ["nope"]),
     (["bench", "--size", "huge"], ["huge", "--size"]), (["explain", "rms_norm", "--hint", "d"], ["name=value"]), (["list", "--device", "tpu9"], ["tpu9"])],
)  # fmt: skip
def test_mistakes_give_exit_code_2_and_no_traceback(arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and all(word in error for word in words)


def test_verify_finds_a_wrong_kernel_and_quarantines_it(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo_kernels.registry import registry

    (tmp_path / "off_by_a_bit.py").write_text(
        "from zoo_kernels.spec import KernelImpl\nfrom zoo_kernels.operations.rms_norm.reference import rms_norm\n\n\n"
        "def slip(*args, **kwargs):\n    return rms_norm(*args, **kwargs) * 1.01\n\n\n"
        "def register(registry):\n    registry.add(KernelImpl('rms_norm', 'slip', lambda: slip, priority=-200))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    table, targets = dict(registry._implementations["rms_norm"]) if "rms_norm" in registry else {}, set(registry._targets)
    try:
        registry.register_from("off_by_a_bit:register")
        common = ["kernels", "verify", "--op", "rms_norm", "--device", "cpu", "--dtype", "float32"]
        assert main([*common, "--implementation", "slip"]) == 1
        assert "FAIL  rms_norm slip" in capsys.readouterr().out
        assert main(["kernels", "quarantine"]) == 0
        assert "parity cases failed" in capsys.readouterr().out
        assert main(["kernels", "quarantine", "--clear"]) == 0
        assert main([*common, "--implementation", "cpu", "--json"]) == 0
    finally:
        registry._implementations["rms_norm"], registry._targets = table, targets


def test_bench_writes_what_it_prints(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    target = tmp_path / "rows.json"
    assert main(["kernels", "bench", "--op", "rms_norm", "--size", "small", "--seconds", "0.02", "--device", "cpu", "--json", str(target)]) == 0
    out = capsys.readouterr().out
    data = json.loads(target.read_text())
    assert {row["implementation"] for row in data["rows"]} >= {"library", "reference", "cpu"}
    assert data["machine"]["bandwidth"] > 0 and "GB/s" in out and "F.rms_norm" in out


def test_unknown_kernel_for_a_model_is_an_error_of_the_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a builder lets through from the kernels package reaches the user as KernelError with reasons and fix."""
    from zoo_kernels import select

    from zoo_core.errors import KernelError
    from zoo_core.loading import _kernel_errors

    with pytest.raises(KernelError, match="'fast'") as caught, _kernel_errors():
        select("rms_norm", choice="fast")
    assert caught.value.exit_code == 2 and caught.value.fix
    with pytest.raises(RuntimeError, match="other"), _kernel_errors():
        raise RuntimeError("other")
