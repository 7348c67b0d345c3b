"""Every implementation of every operation against its definition: on the CPU here, natively where there is a GPU, Triton in its interpreter."""

from __future__ import annotations

import os
import sys

import pytest
import torch
from zoo_kernels import parity, testing
from zoo_kernels.probe import verify
from zoo_kernels.registry import registry

CPU = ("reference", "cpu")
TRITON = [op for op in registry if any(item.name == "triton" for item in registry.implementations(op))]
INTERPRETER = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}


@testing.parametrize(dtypes=("float32", "bfloat16"), implementations=CPU, compiled=False)
def test_cpu(case: testing.Case) -> None:
    case.check()


@testing.parametrize(
    ["rms_norm", "rms_norm_2d", "rotary", "nearest_code", "linear_attention"], dtypes=("float64", "float16"), implementations=CPU, compiled=False
)
def test_cpu_other_dtypes(case: testing.Case) -> None:
    case.check()


@pytest.mark.parametrize("op", ["linear_attention", "rms_norm", "rotary", "nearest_code", "sparse_conv2d", "entropy_select"])
def test_what_claims_to_be_compile_safe_keeps_one_graph(op: str) -> None:
    for item in registry.implementations(op):
        case = parity.Case(op, item.name, "cpu", "float32", "compile")
        if item.compile_safe and not case.reasons():
            case.check()


@pytest.mark.parametrize("op", [op for op in registry if registry.op(op).differentiable])
def test_gradient_of_the_definition_is_the_slope(op: str) -> None:
    assert testing.slope_error(op) < 2e-2


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
@pytest.mark.parametrize("op", TRITON)
def test_triton_in_the_interpreter(op: str) -> None:
    """In a child process, because the interpreter must be switched on before Triton is imported; one dtype (all dtypes: ``zoo kernels verify --interpret``)."""
    pytest.importorskip("triton")
    report = verify(op, "triton", dtypes=["float32"], environment=INTERPRETER)
    assert report.passed, report.problem
    assert report.checked >= 7, "five layouts, no tokens, same bits"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("op", TRITON)
def test_triton_on_the_gpu(op: str) -> None:
    report = verify(op, "triton", "cuda", environment={"ZOO_HOME": os.environ.get("ZOO_HOME", "")})
    assert report.passed, report.problem
    assert report.checked >= 20


# -- the harness itself must see mistakes ----------------------------------------------------------------------------------------------


def wrong(kind: str):
    from zoo_kernels.operations.rms_norm.reference import rms_norm

    def function(x, weight=None, bias=None, eps=1e-6):
        if kind == "values":
            return rms_norm(x, weight, bias, eps) * 1.001
        if kind == "input" and x.numel():
            x.mul_(1.0000001).add_(1e-3)
        if kind == "dtype":
            return rms_norm(x, weight, bias, eps).double()
        if kind == "shape":
            return rms_norm(x, weight, bias, eps)[..., :-1]
        if kind == "memory" and x.numel():  # ignores strides: reads what lies next in memory
            return rms_norm(torch.as_strided(x, x.shape, torch.empty(x.shape).stride()), weight, bias, eps)
        if kind == "gradient":
            y = rms_norm(x.detach(), weight, bias, eps)
            return y + (x - x.detach()) * 0.5
        if kind == "random":
            return rms_norm(x, weight, bias, eps) * (1 + 1e-6 * torch.rand(()))
        if kind == "empty" and not x.numel():
            raise RuntimeError("no tokens")
        if kind == "bias" and weight is None and bias is not None:
            return rms_norm(x, None, None, eps)
        if kind == "graph":
            print(end="")
            float(x.detach().sum())
        return rms_norm(x, weight, bias, eps)

    return function


@pytest.mark.parametrize(
    ("kind", "where"),
    [("values", "forward"), ("input", "forward"), ("dtype", "forward"), ("shape", "forward"), ("memory", "forward"), ("gradient", "backward"),
     ("random", "repeat"), ("empty", "forward"), ("bias", "forward"), ("graph", "compile")],
)  # fmt: skip
def test_harness_sees(kind: str, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo_kernels.spec import KernelImpl

    monkeypatch.setitem(registry._implementations["rms_norm"], "wrong", KernelImpl("rms_norm", "wrong", lambda: wrong(kind)))
    verdicts = [parity.run(case) for case in parity.cases("rms_norm", "wrong", dtypes=["float32"], compiled=kind == "graph")]
    failed = [v for v in verdicts if not v.passed]
    assert failed, "the harness saw nothing"
    assert {v.case.kind for v in failed} >= {where}
    if kind in ("memory", "empty", "bias", "gradient", "random", "graph"):
        assert any(v.passed for v in verdicts), "only what is wrong fails"


def test_layouts_keep_the_numbers() -> None:
    value = torch.randn(3, 4, 5)
    for layout in parity.LAYOUTS:
        moved = parity.arrange(value, layout)
        assert torch.equal(moved, value[:1].expand_as(value) if layout == "expanded" else value)
        assert (moved.is_contiguous() and moved.storage_offset() == 0) == (layout == "contiguous")


# -- edges of the operations -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CPU)
def test_rows_without_features_give_zero(name: str) -> None:
    attend = registry.implementation("linear_attention", name).load()
    q, k, v = (torch.randn(1, 6, 2, 16, generator=torch.Generator().manual_seed(i)) for i in range(3))
    q[0, 2] = -1.0
    with torch.no_grad():
        out = attend(q, k, v)
        assert torch.equal(out[0, 2], torch.zeros(2, 16))
        assert torch.equal(attend(q, -k.abs(), v), torch.zeros_like(out)), "no key has a feature"
        assert torch.isfinite(attend(q, k.half() * 0 + 60000, v)).all(), "the core is float32: large features do not overflow"


@pytest.mark.parametrize("name", CPU)
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_lowest_index_of_equal_codes_wins(name: str, metric: str) -> None:
    look_up = registry.implementation("nearest_code", name).load()
    codes = torch.eye(8, 16).repeat(200, 1)
    found = look_up(torch.eye(8, 16).repeat(400, 1), codes, metric=metric)
    assert torch.equal(found, torch.arange(8).repeat(400))


def test_rotary_keeps_distances_between_positions() -> None:
    rotary = registry.op("rotary").reference
    angles = torch.arange(50.0)[:, None] * 10000.0 ** (-torch.arange(8) / 8)
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)
    at = lambda x, n, style: rotary(x, angles.cos(), angles.sin(), style=style, position_ids=torch.tensor([[n]]))  # noqa: E731
    for style in ("half", "interleaved"):
        near, far = (float((at(q, n, style) * at(k, n + 7, style)).sum()) for n in (0, 42))
        assert near == pytest.approx(far, rel=1e-3, abs=1e-4)
        assert torch.equal(at(q, 0, style), q)


@pytest.mark.parametrize(
    ("op", "arguments", "text"),
    [("rotary", (torch.zeros(1, 1, 2, 4), torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)), "rotary_dim"),
     ("nearest_code", (torch.zeros(2, 4), torch.zeros(0, 4)), "empty"), ("nearest_code", (torch.zeros(2, 4), torch.zeros(3, 4), "l1"), "metric")],
)  # fmt: skip
def test_bad_arguments_are_named(op: str, arguments: tuple[object, ...], text: str) -> None:
    for name in CPU:
        with pytest.raises(ValueError, match=text):
            registry.implementation(op, name).load()(*arguments)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("last", [False, True], ids=["channels-first", "channels-last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_large_pictures_are_normed_in_pieces(dtype: torch.dtype, last: bool, overwrite: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The paths that the small parity cases do not reach, with pieces that end inside a picture."""
    from zoo_kernels.operations.rms_norm import cpu as rows
    from zoo_kernels.operations.rms_norm_2d import cpu

    monkeypatch.setattr(cpu, "SMALL", 0)
    monkeypatch.setattr(cpu, "CHUNK", 70)
    monkeypatch.setattr(rows, "CHUNK", 70)
    x, weight, bias, residual = (torch.randn(*shape).to(dtype) for shape in ((2, 6, 5, 7), (6,), (6,), (2, 6, 5, 7)))
    for other in (residual, None):
        expected = registry.op("rms_norm_2d").reference(
            *(t.float() if t is not None else None for t in (x, weight, bias)), 1e-5, None if other is None else other.float()
        )
        given = (x.to(memory_format=torch.channels_last) if last else x).clone()
        before = given.clone()
        with torch.no_grad():
            out = cpu.rms_norm_2d(given, weight, bias, 1e-5, other, overwrite)
        assert parity.distance(out, expected) < (1e-2 if dtype == torch.bfloat16 else 1e-5) and out.dtype == dtype
        assert out.stride() == given.stride()
        assert (out.data_ptr() == given.data_ptr()) == overwrite and (overwrite or torch.equal(given, before))
