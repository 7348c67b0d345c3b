"""Into modules: zero-copy, casts, ties, buffers; and what is refused (faults 18, 19, 20)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from zoo_core.checkpoint import DictSource, KeyMap, Rename, init_random, load_into, open_checkpoint, save_checkpoint
from zoo_core.errors import CheckpointError, CheckpointMismatchError, NoSpaceError
from zoo_core.interfaces.weights import LoadReport
from zoo_core.testing.faults import full_disk


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.blocks = nn.ModuleList([nn.Linear(6, 6) for _ in range(2)])
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight


class WithBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("table", torch.arange(3.0), persistent=False)


def meta(factory: type[nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return factory()


@pytest.fixture
def saved(tmp_path: Path) -> tuple[nn.Module, Path]:
    module = init_random(Tied, 3, dtype=torch.bfloat16)
    (path,) = save_checkpoint(module, tmp_path / "model.safetensors")
    return module, path


def test_assigned_without_a_copy_where_dtype_fits(saved: tuple[nn.Module, Path]) -> None:
    module, path = saved
    target, report = meta(Tied), LoadReport()
    source = open_checkpoint(path, mmap=True)
    match = load_into(target, source, component="net", report=report)
    assert match.ok and match.bytes_copied == 0 and not match.cast
    assert target.blocks[0].weight.data_ptr() == source.get("blocks.0.weight").data_ptr(), "a view of the mapped file"
    assert target.head.weight is target.embed.weight and match.tied == {"head.weight": "embed.weight"}
    assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), target.state_dict().values()))
    assert report.tensors["net"]["head.weight"] == str(path) and report.bytes == {"mapped": match.bytes_mapped, "copied": 0}
    assert target.blocks[0].weight.requires_grad and isinstance(target.blocks[0].weight, nn.Parameter)


@pytest.mark.parametrize("mmap", [True, False])
def test_cast_tensor_by_tensor(saved: tuple[nn.Module, Path], mmap: bool) -> None:
    module, path = saved
    target, report = meta(Tied), LoadReport()
    load_into(target, open_checkpoint(path, mmap=mmap), dtype=lambda key: torch.float32 if key.startswith("norm") else torch.float64, report=report)
    assert target.norm.weight.dtype == torch.float32 and target.embed.weight.dtype == torch.float64
    assert target.norm.num_batches_tracked.dtype == torch.int64, "integers are never cast"
    assert torch.equal(target.embed.weight, module.embed.weight.double()) and target.head.weight is target.embed.weight
    assert report.cast["model"] == "bfloat16->float64: 5 tensors, bfloat16->float32: 4 tensors" or "4 tensors" in report.cast["model"]


def test_a_view_in_use_is_never_released(tmp_path: Path) -> None:
    (path,) = save_checkpoint({"weight": torch.ones(2048, 1024), "bias": torch.ones(2048)}, tmp_path / "m.safetensors")
    source = open_checkpoint(path, mmap=True)
    first, second = (meta(lambda: nn.Linear(1024, 2048)) for _ in range(2))  # type: ignore[arg-type]
    load_into(first, source)
    with torch.no_grad():
        first.weight.add_(1)
    load_into(second, source, dtype=torch.bfloat16)
    assert bool((first.weight == 2).all()), "giving pages back must not undo what was written to a view"


def test_casting_peak_is_result_plus_one_tensor(tmp_path: Path) -> None:
    """64 tensors of 2 MB in bfloat16: result 256 MB; a loader that holds the file too would add 128 MB."""
    save_checkpoint({f"w{index}": torch.zeros(1024, 1024, dtype=torch.bfloat16) for index in range(64)}, tmp_path / "m.safetensors")
    code = f"""
import torch, resource
from torch import nn
from zoo_core.checkpoint import load_into, open_checkpoint
module = nn.Module()
for index in range(64):
    module.register_parameter(f"w{{index}}", nn.Parameter(torch.empty(1024, 1024, device="meta")))
def rss(): return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
open("/proc/self/clear_refs", "w").write("5")
before = rss()
load_into(module, open_checkpoint({str(tmp_path / "m.safetensors")!r}, mmap=True), dtype=torch.float32)
print(rss() - before)
"""
    grown = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 250 < grown < 256 + 30, f"peak grew by {grown:.0f} MB for a result of 256 MB"


def test_fault_18_missing_unexpected_and_shapes_are_grouped_with_a_cause(saved: tuple[nn.Module, Path]) -> None:
    module, _ = saved
    state = {key: value for key, value in module.state_dict().items() if key != "head.weight"}

    def error(tensors: dict[str, torch.Tensor], target: nn.Module | None = None) -> CheckpointMismatchError:
        fresh = target if target is not None else meta(Tied)
        with pytest.raises(CheckpointMismatchError) as caught:
            load_into(fresh, tensors, component="net")
        assert all(value.is_meta for value in fresh.parameters()), "nothing may be half loaded"
        return caught.value

    wrapped = error({f"module.{key}": value for key, value in state.items()})
    assert "start with 'module.'" in str(wrapped) and "Rename(" in str(wrapped) and "(net)" in str(wrapped)
    assert load_into(meta(Tied), {f"module.{key}": value for key, value in state.items()}, keymap=KeyMap([Rename("module.{key*}", "{key*}")])).ok
    fewer = error({key: value for key, value in state.items() if not key.startswith("norm")})
    assert "norm.* (5" in str(fewer) and "incomplete" in str(fewer)
    more = error(state | {"ema.x": torch.ones(1), "ema.y": torch.ones(1)})
    assert "ema.* (2: x, y)" in str(more) and "training state" in str(more)
    shapes = error(state | {"blocks.0.weight": torch.ones(6, 8)})
    assert "shape of blocks.0.weight: model (6, 6), checkpoint (6, 8)" in str(shapes) and "variant" in str(shapes)
    assert "1x1 convolution" in str(error(state | {"blocks.0.weight": torch.ones(6, 6, 1, 1)}))
    assert "transposed" in str(error({"weight": torch.ones(2, 3)}, meta(lambda: nn.Linear(2, 3, bias=False))))  # type: ignore[arg-type]
    assert "another layout" in str(error({"x": torch.ones(1)}))
    assert "only the part 'blocks.0'" in str(
        error(
            {"weight": torch.ones(6, 6), "bias": torch.ones(6)},
            meta(lambda: nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(6, 6)]), "x": nn.Embedding(1, 1)})),
        )
    )  # type: ignore[arg-type]
    report = shapes.fields["report"]
    assert report.mismatched == [("blocks.0.weight", "(6, 6)", "(6, 8)")] and not report.ok


def test_fault_18_tied_weights_absent_or_contradictory(saved: tuple[nn.Module, Path]) -> None:
    module, _ = saved
    state = dict(module.state_dict())
    only_head = {key: value for key, value in state.items() if key != "embed.weight"}
    target = meta(Tied)
    assert load_into(target, only_head).tied == {"embed.weight": "head.weight"} and target.head.weight is target.embed.weight
    assert load_into(meta(Tied), state).ok
    with pytest.raises(CheckpointMismatchError, match=r"tied to embed.weight"):
        load_into(meta(Tied), state | {"head.weight": torch.ones_like(state["head.weight"])})


def test_fault_18_integers_do_not_become_floats_silently() -> None:
    with pytest.raises(CheckpointMismatchError, match="model float32, checkpoint int8"):
        load_into(nn.Linear(2, 2, bias=False), {"weight": torch.ones(2, 2, dtype=torch.int8)})


def test_not_strict_reports_but_shapes_still_raise() -> None:
    report = LoadReport()
    match = load_into(nn.Linear(2, 2), {"weight": torch.ones(2, 2), "more": torch.ones(1)}, strict=False, report=report)
    assert match.missing == ["bias"] and match.unexpected == ["more"] and "1 missing and 1 unexpected" in report.warnings[0]
    with pytest.raises(CheckpointMismatchError):
        load_into(nn.Linear(2, 2), {"weight": torch.ones(3, 2)}, strict=False)


def test_fault_19_nothing_stays_on_meta() -> None:
    state = nn.Linear(2, 2).state_dict()
    tensors = {f"linear.{key}": value for key, value in state.items()}
    with pytest.raises(CheckpointError, match="buffer table"):
        load_into(meta(WithBuffer), tensors)
    for given in ({"table": torch.arange(3.0)}, lambda name, value: torch.arange(3.0)):
        target = meta(WithBuffer)
        load_into(target, tensors, buffers=given)  # type: ignore[arg-type]
        assert target.table.tolist() == [0, 1, 2]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_fault_20_scan_finds_nan_and_infinity(bad: float) -> None:
    tensors = {"weight": torch.tensor([[1.0, bad]]), "bias": torch.ones(1)}
    report = LoadReport()
    load_into(nn.Linear(2, 1), tensors, scan="warn", report=report)
    assert report.warnings == ["model: NaN or infinity in weight"]
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        load_into(nn.Linear(2, 1), tensors, scan="error")
    quiet = LoadReport()
    load_into(nn.Linear(2, 1), tensors, report=quiet)
    assert not quiet.warnings


def test_fault_20_overflow_to_float16_is_refused() -> None:
    tensors = {"weight": torch.tensor([[1.0, 1e5]], dtype=torch.bfloat16), "bias": torch.ones(1, dtype=torch.bfloat16)}
    with pytest.raises(CheckpointError, match=r"weight: largest value 9.98e\+04, float16 ends at 6.55e\+04") as caught:
        load_into(nn.Linear(2, 1), tensors, dtype=torch.float16)
    assert "bfloat16 or float32" in str(caught.value)
    load_into(nn.Linear(2, 1), tensors, dtype=torch.float32)


def test_random_initialisation_is_seeded_and_leaves_the_callers_state_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one, two, other = init_random(Tied, 5), init_random(Tied, 5), init_random(Tied, 6)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one.blocks[0].weight, two.blocks[0].weight) and not torch.equal(one.blocks[0].weight, other.blocks[0].weight)
    assert init_random(Tied, 5, dtype=torch.bfloat16).norm.running_mean.dtype == torch.bfloat16 and torch.get_default_dtype() == torch.float32


def test_writing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint({"a": torch.ones(3)}, path)
    before = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask(), "readable for whom the umask says"
    from safetensors import SafetensorError

    def fail(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", fail)
        with pytest.raises(NoSpaceError):
            save_checkpoint({"a": torch.zeros(3)}, path)
    with full_disk(tmp_path, after=0), pytest.raises(NoSpaceError):
        save_checkpoint({"a": torch.zeros(300), "b": torch.zeros(300)}, tmp_path / "s.safetensors", max_shard_bytes=1500)
    assert path.read_bytes() == before and not list(tmp_path.glob(".*"))
    with pytest.raises(CheckpointError, match="meta device"):
        save_checkpoint(meta(Tied), path)
    with pytest.raises(CheckpointError, match="written as safetensors"):
        save_checkpoint({"a": torch.zeros(3)}, tmp_path / "m.pt")


def test_overlapping_and_strided_tensors_are_written_as_they_look(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    tensors = {"whole": base, "same": base, "row": base[1], "column": base[:, 1], "flipped": base.T}
    save_checkpoint(tensors, tmp_path / "m.safetensors")
    source = open_checkpoint(tmp_path)
    assert set(source.keys()) == {"whole", "row", "column", "flipped"}, "one memory, one name"
    assert all(torch.equal(source.get(key), tensors[key]) for key in source)


def test_dict_source_takes_part_in_everything() -> None:
    assert load_into(nn.Linear(1, 1), DictSource({"weight": torch.ones(1, 1), "bias": torch.ones(1)})).ok


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
