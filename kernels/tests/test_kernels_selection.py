"""Choosing: order, forcing, reasons, loud fallback once, quarantine, the check before first use, third parties."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from zoo_kernels import KernelError, describe, explain, ops, probe, quarantine, select, selection, use
from zoo_kernels.registry import KernelRegistry, registry
from zoo_kernels.spec import KernelImpl, OpSpec, Query

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A home of its own, no forced choices, nothing warned about yet, the registry restored."""
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ZOO_KERNELS", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(selection, "_warned", set())
    before = {op: dict(registry._implementations[op]) for op in registry}
    known, origins, targets = dict(registry._ops), dict(registry._origins), set(registry._targets)
    yield
    registry._ops, registry._origins, registry._targets = known, origins, targets
    registry._implementations = before


def add(name: str, **options: object) -> KernelImpl:
    item = KernelImpl("rms_norm", name, options.pop("load", lambda: registry.op("rms_norm").reference), **{"priority": 50, **options})  # type: ignore[arg-type]
    registry.add(item)
    return registry.implementation("rms_norm", name)


# -- the choice ------------------------------------------------------------------------------------------------------------------------


def test_default_on_a_cpu() -> None:
    function = select("linear_attention", head_dim=32)
    assert describe(function) == "cpu"
    rejected = explain("linear_attention").rejected
    assert list(rejected) == ["triton"] and rejected["triton"]


def test_precedence_of_forcing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_KERNELS", "rms_norm=reference, linear_attention=cpu")
    assert describe(select("rms_norm")) == "reference (forced by ZOO_KERNELS)"
    with use(rms_norm="cpu"):
        assert describe(select("rms_norm")) == "cpu (forced by use())"
        assert describe(select("rms_norm", choice="reference")) == "reference (forced by argument)"
        with use(rms_norm="reference"):
            assert describe(select("rms_norm")) == "reference (forced by use())"
        assert describe(select("rms_norm")) == "cpu (forced by use())"
    assert describe(select("rms_norm")) == "reference (forced by ZOO_KERNELS)"


def test_bound_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What select returns is the implementation itself: later changes of the environment do not reach it."""
    function = select("rms_norm", choice="reference")
    assert function is registry.op("rms_norm").reference is ops.rms_norm.reference
    monkeypatch.setenv("ZOO_KERNELS", "rms_norm=nonsense")
    function(torch.ones(2, 4))


def test_one_graph() -> None:
    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend, self.norm = select("linear_attention", compiled=True), select("rms_norm", compiled=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.attend(x, x, x))

    block, x = Block(), torch.randn(1, 5, 2, 16)
    torch._dynamo.reset()
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x), block(x), atol=1e-6)


def test_compiled_and_gradients_are_reasons() -> None:
    add("fast", backward=False, compile_safe=False)
    assert describe(select("rms_norm")) == "fast"
    assert explain("rms_norm", needs_grad=True).rejected["fast"] == ["has no backward pass"]
    assert "graph" in " ".join(selection.choose("rms_norm", Query(CPU, torch.float32, compiled=True))[1].rejected["fast"])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: select("rms_nrom"), ["rms_nrom", "rms_norm"]),
        (lambda: select("rms_norm", choice="cuda"), ["'cuda'", "reference"]),
        (lambda: select("rms_norm", choice="triton", fallback=False), ["forced by argument", "GPU", "fix:"]),
        (lambda: use(rms_norm="cuda").__enter__(), ["'cuda'"]),
        (lambda: selection.pairs("rms_norm"), ["op=implementation"]),
    ],
)
def test_errors_say_what_and_what_to_do(call, words: list[str]) -> None:
    with pytest.raises(KernelError) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


def test_unknown_in_the_environment_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_KERNELS", "rms_norm=fast")
    with pytest.raises(KernelError, match="no implementation 'fast'"):
        select("rms_norm")


def test_falls_back_loudly_once() -> None:
    with pytest.warns(RuntimeWarning, match="rms_norm=triton .forced by argument. cannot run here: .*GPU"):
        function = select("rms_norm", choice="triton")
    assert describe(function).startswith("cpu; not triton: ")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        select("rms_norm", choice="triton")


@pytest.mark.parametrize("failure", [ImportError("no such build"), OSError("wrong ELF class"), RuntimeError("arch sm_52 is not supported")])
def test_what_cannot_be_loaded_is_passed_over(failure: Exception) -> None:
    def load() -> None:
        raise failure

    add("broken", load=load)
    with pytest.warns(RuntimeWarning, match=str(failure)):
        function = select("rms_norm")
    assert describe(function).startswith("cpu; not broken: ") and str(failure) in describe(function)
    with pytest.raises(KernelError, match=str(failure)):
        select("rms_norm", choice="broken", fallback=False)


# -- quarantine ------------------------------------------------------------------------------------------------------------------------


def test_quarantine_is_remembered_and_lifted() -> None:
    item = add("fast")
    quarantine.quarantine(item, CPU, "gave 3 instead of 2")
    with pytest.warns(RuntimeWarning, match="gave 3 instead of 2"):
        assert describe(select("rms_norm")).startswith("cpu; not fast: quarantined")
    assert quarantine.release("linear_attention") == 0
    assert quarantine.release("rms_norm") == 1
    assert describe(select("rms_norm")) == "fast"


def test_key_holds_what_may_change_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    key = quarantine.key(add("fast"), CPU)
    assert torch.__version__ in key
    assert key != quarantine.key(add("fast2", version=2), CPU).replace("fast2", "fast")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *a: "H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *a: (9, 0))
    quarantine._device.cache_clear()
    try:
        text = quarantine.key(registry.implementation("rms_norm", "fast"), torch.device("cuda"))
        assert "H200-sm90-" in text and "driver" in text
    finally:
        quarantine._device.cache_clear()


def test_unreadable_or_unwritable_records_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quarantine.path().parent.mkdir(parents=True)
    quarantine.path().write_text("{half")
    assert describe(select("rms_norm")) == "cpu"
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home" / "kernels" / "quarantine.json"))  # a file where a folder must be
    with pytest.warns(RuntimeWarning, match="cannot be kept"):
        quarantine.quarantine(registry.implementation("rms_norm", "cpu"), CPU, "x")


# -- the check before first use --------------------------------------------------------------------------------------------------------

THIRD_PARTY = """
    import os, time, torch
    from zoo_kernels.spec import KernelImpl
    from zoo_kernels.operations.rms_norm.reference import rms_norm

    def right(x, weight=None, bias=None, eps=1e-6):
        return rms_norm(x, weight, bias, eps)

    def wrong(x, weight=None, bias=None, eps=1e-6):
        return rms_norm(x, weight, bias, eps) * 1.01

    def crash(x, weight=None, bias=None, eps=1e-6):
        os.kill(os.getpid(), 11)

    def leave(x, weight=None, bias=None, eps=1e-6):
        os._exit(7)

    def hang(x, weight=None, bias=None, eps=1e-6):
        time.sleep(600)

    def uncompilable(x, weight=None, bias=None, eps=1e-6):
        raise RuntimeError("PTX assembly aborted")

    def register(registry):
        for function in (right, wrong, crash, leave, hang, uncompilable):
            registry.add(KernelImpl("rms_norm", function.__name__, lambda function=function: function, priority=-50, probe=True))
"""


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_kernels.py").write_text(textwrap.dedent(THIRD_PARTY))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_kernels", raising=False)
    monkeypatch.setattr(probe, "SECONDS", 60.0)
    registry.register_from("their_kernels:register")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wrong", "parity cases failed"),
        ("crash", "SIGSEGV in rms_norm-crash-cpu-float32-forward"),
        ("leave", "exit code 7"),
        ("uncompilable", "PTX assembly aborted"),
    ],
)
def test_failing_kernel_is_found_in_a_child_and_never_tried_again(name: str, words: str, third_party: None) -> None:
    with pytest.warns(RuntimeWarning) as caught:
        function = select("rms_norm", choice=name)
    assert len(caught) == 1 and words in str(caught[0].message)
    assert describe(function).startswith(f"cpu; not {name}: ") and words in describe(function)
    [(key, note)] = quarantine.records().items()
    assert key.startswith(f"rms_norm|{name}|1|") and words in note
    selection._warned.clear()
    probe_again = pytest.MonkeyPatch()
    probe_again.setattr(probe, "verify", lambda *a, **k: pytest.fail("it was tried again"))
    with pytest.warns(RuntimeWarning, match="quarantined on this machine"), probe_again.context():
        select("rms_norm", choice=name)
    probe_again.undo()
    with pytest.raises(KernelError, match="quarantined"):
        select("rms_norm", choice=name, fallback=False)


def test_hanging_kernel_is_given_up(third_party: None) -> None:
    report = probe.verify("rms_norm", "hang", seconds=8)
    assert not report.passed and "did not finish within 8 s" in report.problem
    assert quarantine.quarantined(registry.implementation("rms_norm", "hang"), CPU)


def test_right_kernel_is_checked_once(third_party: None, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    true = probe.verify
    monkeypatch.setattr(probe, "verify", lambda *a, **k: calls.append(a) or true(*a, **k))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            assert describe(select("rms_norm", choice="right")) == "right (forced by argument)"
    assert len(calls) == 1


def test_check_can_be_switched_off(third_party: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_KERNELS_PROBE", "0")
    monkeypatch.setattr(probe, "verify", lambda *a, **k: pytest.fail("a child process was started"))
    assert describe(select("rms_norm", choice="crash")) == "crash (forced by argument)"


# -- registering -----------------------------------------------------------------------------------------------------------------------


def test_names_are_not_taken_twice() -> None:
    add("fast")
    with pytest.raises(KernelError, match="has an implementation 'fast' already"):
        add("fast")
    with pytest.raises(KernelError, match="registered already"):
        registry.add_op(registry.op("rms_norm"))


def test_registering_what_is_not_there() -> None:
    with pytest.raises(KernelError, match="no_such_module"):
        registry.register_from("no_such_module:register")
    with pytest.raises(KernelError, match="module:function"):
        registry.register_from("no_such_module")


def test_own_operation() -> None:
    table = KernelRegistry()
    double = OpSpec(
        "double", "double(x) -> x", lambda x: x * 2, lambda device, dtype, seed, size: ([torch.ones(3, device=device, dtype=dtype)], {}), {"float32": 1e-6},
        lambda args, kwargs: 24, lambda args, kwargs: 3,
    )  # fmt: skip
    table.add_op(double)
    assert "double" in list(table) and [item.name for item in table.implementations("double")] == ["reference"]


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, zoo_kernels; bad = {'torch', 'triton', 'numpy'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)})


def test_choosing_imports_no_triton() -> None:
    code = "import sys, zoo_kernels; zoo_kernels.select('linear_attention'); sys.exit('triton.language' in sys.modules and 'torch._dynamo' not in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)})
