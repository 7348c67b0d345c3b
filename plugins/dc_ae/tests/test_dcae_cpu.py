"""The CPU inference paths against the plain formulas."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from zoo_dc_ae import cpu
from zoo_dc_ae.attention import EfficientViTBlock
from zoo_dc_ae.layers import Downsample, PointwiseConv, ResBlock, RMSNorm2d, Upsample, average_shortcut


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def both(module: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(fast, plain): without gradients the CPU path runs, with gradients the plain one."""
    module.eval()
    with torch.no_grad():
        fast = module(x.clone())
    return fast, module(x.clone().requires_grad_()).detach()


def test_paths_are_chosen_by_gradients() -> None:
    x = torch.zeros(1)
    assert not cpu.usable(x)
    with torch.no_grad():
        assert cpu.usable(x)
        assert not cpu.usable(x.to("meta"))


@pytest.mark.parametrize("kind", ["interpolate", "pixel_shuffle"])
@pytest.mark.parametrize(("inputs", "outputs"), [(8, 4), (8, 8), (4, 8), (16, 4), (8, 3)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_upsample(kind: str, inputs: int, outputs: int, channels_last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "PIXELS", 0)
    module = Upsample(inputs, outputs, kind, shortcut=outputs != 3)
    x = torch.randn(2, inputs, 5, 7)
    if channels_last:
        x, module = x.contiguous(memory_format=torch.channels_last), module.to(memory_format=torch.channels_last)
    fast, plain = both(module, x)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)


def test_phase_weights_save_multiplications_and_keep_the_sum() -> None:
    weight = torch.randn(6, 5, 3, 3)
    phases = cpu.phase_weights(weight)
    assert phases.shape == (24, 5, 2, 2)
    for phase in phases.chunk(4):
        torch.testing.assert_close(phase.sum((2, 3)), weight.sum((2, 3)))


@pytest.mark.parametrize(("inputs", "outputs"), [(8, 16), (8, 8), (8, 4), (4, 16)])
@pytest.mark.parametrize("kind", ["conv", "pixel_unshuffle"])
def test_downsample(inputs: int, outputs: int, kind: str) -> None:
    for memory_format in (torch.contiguous_format, torch.channels_last):
        fast, plain = both(Downsample(inputs, outputs, kind), torch.randn(2, inputs, 6, 10).contiguous(memory_format=memory_format))
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)


def test_shortcut_groups_are_consecutive() -> None:
    """Channel c*4 + 2*dy + dx after unshuffle; groups of two are horizontal neighbours (trap 4 of the fact sheet)."""
    x = torch.arange(8.0).view(1, 2, 2, 2)
    assert average_shortcut(x, 2).flatten().tolist() == [0.5, 2.5, 4.5, 6.5]
    assert average_shortcut(x, 4).flatten().tolist() == [1.5, 5.5]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm(residual: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "CHUNK", 64)
    norm = RMSNorm2d(12).to(dtype)
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    x, other = torch.randn(2, 12, 5, 3).to(dtype), torch.randn(2, 12, 5, 3).to(dtype)
    exact = x.double() / (x.double().square().mean(1, keepdim=True) + 1e-5).sqrt() * norm.weight.double()[:, None, None] + norm.bias.double()[:, None, None]
    exact = exact + other.double() if residual else exact
    with torch.no_grad():
        fast = norm(x.clone(), other if residual else None)
    plain = norm(x.clone(), other if residual else None).detach()
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(fast.double(), exact, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(plain.double(), exact, rtol=tolerance, atol=tolerance)


def test_pointwise_with_one_thread() -> None:
    module, x = PointwiseConv(16, 24), torch.randn(2, 16, 9, 9)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        fast, plain = both(module, x)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", [ResBlock(16), ResBlock(16, "batch_norm", "relu"), EfficientViTBlock(32), EfficientViTBlock(32, scales=[5]), EfficientViTBlock(32, norm="batch_norm")])
@pytest.mark.parametrize("size", [(4, 8), (9, 11)])
def test_blocks_leave_their_input_alone(block: torch.nn.Module, size: tuple[int, int]) -> None:
    channels = next(block.parameters()).shape[1]
    x = torch.randn(2, channels, *size)
    kept = x.clone()
    with torch.no_grad():
        fast = block.eval()(x)
    assert torch.equal(x, kept)
    torch.testing.assert_close(fast, block(x).detach(), rtol=1e-4, atol=1e-5)


def test_quadratic_and_linear_attention_agree() -> None:
    """At most head_dim pixels take the quadratic form; both are the same function (trap 5)."""
    from zoo_dc_ae.attention import _linear, _quadratic

    q, k, v = (torch.randn(2, 3, 32, 30, dtype=torch.float64) for _ in range(3))
    torch.testing.assert_close(_linear(F.relu(q), F.relu(k), v), _quadratic(F.relu(q), F.relu(k), v))
    zero = torch.zeros(1, 1, 32, 4)
    assert torch.equal(_linear(zero, zero, zero + 1), zero) and torch.equal(_quadratic(zero, zero, zero + 1), zero)
