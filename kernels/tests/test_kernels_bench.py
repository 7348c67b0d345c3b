"""The bench counts right and measures the machine first."""

from __future__ import annotations

import pytest
import torch
from zoo_kernels.bench import bench, environment
from zoo_kernels.registry import registry
from zoo_kernels.roofline import Machine, best, measure

MACHINE = Machine("cpu", "test", 1, bandwidth=1e10, rates={"float32": 1e11})


def test_ceilings_are_plausible() -> None:
    machine = measure("cpu", seconds=0.05)
    assert 1e8 < machine.bandwidth < 1e13 and 1e8 < machine.rates["float32"] < 1e15
    assert machine.name and machine.threads == torch.get_num_threads()


def test_floor_is_the_worse_of_memory_and_arithmetic() -> None:
    assert MACHINE.floor(10**10, 0, "float32") == pytest.approx(1.0)
    assert MACHINE.floor(10**10, 10**12, "float32") == pytest.approx(10.0)
    assert MACHINE.floor(0, 10**11, "bfloat16") == pytest.approx(1.0), "an unmeasured dtype takes the best rate"


def test_rows() -> None:
    rows = list(bench(MACHINE, ["rms_norm", "nearest_code"], sizes=["small"], backward=True, seconds=0.01))
    found = {(row.op, row.implementation, row.direction) for row in rows}
    assert {("rms_norm", name, way) for name in ("library", "reference", "cpu") for way in ("forward", "forward+backward")} <= found
    assert ("nearest_code", "library", "forward") in found and not any(r.direction != "forward" for r in rows if r.op == "nearest_code")
    for row in rows:
        spec = registry.op(row.op)
        args, kwargs = spec.example(torch.device("cpu"), torch.float32, 0, "small")
        times = 3 if row.direction == "forward+backward" else 1
        assert row.gigabytes * row.seconds * 1e9 == pytest.approx(times * spec.bytes_moved(args, kwargs))
        assert row.gigaflops * row.seconds * 1e9 == pytest.approx(times * spec.flops(args, kwargs))
        assert row.share == pytest.approx(MACHINE.floor(times * spec.bytes_moved(args, kwargs), times * spec.flops(args, kwargs), "float32") / row.seconds)
        assert row.to_dict()["op"] == row.op
    assert rows[0].implementation == "library" and rows[0].speedup == 1.0


@pytest.mark.parametrize("op", list(registry))
def test_counts_are_positive_and_the_library_agrees(op: str) -> None:
    """A library call that computes something else would make the comparison worthless (where the operation is another one, its name says so)."""
    spec = registry.op(op)
    args, kwargs = spec.example(torch.device("cpu"), torch.float32, 0, "tiny")
    assert spec.bytes_moved(args, kwargs) > 0 and spec.flops(args, kwargs) > 0
    if spec.rival is None:
        return
    out, expected = spec.rival(*args, **kwargs), spec.reference(*args, **kwargs)
    if not spec.rival_agrees:
        assert out.shape == expected.shape and not torch.allclose(out, expected, rtol=1e-2, atol=1e-2)
        return
    assert torch.equal(out, expected) if out.dtype == torch.int64 else torch.allclose(out, expected, rtol=1e-4, atol=1e-4)


def test_linear_attention_stands_beside_softmax_attention() -> None:
    rows = list(bench(MACHINE, ["linear_attention"], sizes=["small"], seconds=0.01))
    assert [row.implementation for row in rows] == ["library", "reference", "cpu"] and "softmax" in rows[0].note


def test_flops_of_linear_attention() -> None:
    q = torch.empty(2, 10, 3, 8)
    assert registry.op("linear_attention").flops([q, q, q], {}) == 2 * (2 * 3) * (10 * 8 * 9) * 2
    assert registry.op("linear_attention").bytes_moved([q, q, q], {}) == 4 * q.numel() * 4


def test_best_is_the_fastest_call() -> None:
    import time

    waits = iter([0, 0, 0.03, 0.001, 0.03])
    assert 0.001 <= best(lambda: time.sleep(next(waits, 0.03)), seconds=0.0, least=3) < 0.02


def test_environment_names_versions() -> None:
    about = environment(MACHINE)
    assert about["torch"] == torch.__version__ and about["machine"]["bandwidth"] == 1e10 and about["date"]
    assert len(about["load_average"]) == 3, "other work on the machine stands beside the numbers"
