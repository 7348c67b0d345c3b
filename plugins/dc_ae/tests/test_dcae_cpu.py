"""The CPU inference paths against the plain formulas."""

from __future__ import annotations

import pytest
import torch
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


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["first", "last"])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm(residual: bool, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    norm = RMSNorm2d(12).to(dtype)
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    x, other = (torch.randn(2, 12, 5, 3).to(dtype).contiguous(memory_format=memory_format) for _ in range(2))
    exact = x.double() / (x.double().square().mean(1, keepdim=True) + 1e-5).sqrt() * norm.weight.double()[:, None, None] + norm.bias.double()[:, None, None]
    exact = exact + other.double() if residual else exact
    with torch.no_grad():
        fast = norm(x.clone(), other if residual else None)
    plain = norm(x.clone(), other if residual else None).detach()
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(fast.double(), exact, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(plain.double(), exact, rtol=tolerance, atol=tolerance)


def test_rms_norm_calls_its_kernel_for_inference_on_its_device_only() -> None:
    norm, calls = RMSNorm2d(4), []
    norm.core = lambda x, weight, bias, eps, residual, overwrite: calls.append((eps, residual, overwrite)) or x
    x = torch.randn(1, 4, 2, 2)
    norm(x)
    assert not calls, "with gradients: the formula"
    with torch.no_grad():
        norm(x)
        assert calls == [(1e-5, None, True)]
        norm.core_device = "cuda"
        norm(x)
    assert len(calls) == 1, "on another device than the one it was bound for: the formula"


def test_pointwise_with_one_thread() -> None:
    module, x = PointwiseConv(16, 24), torch.randn(2, 16, 9, 9)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        fast, plain = both(module, x)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "block",
    [ResBlock(16), ResBlock(16, "batch_norm", "relu"), EfficientViTBlock(32), EfficientViTBlock(32, scales=[5]), EfficientViTBlock(32, norm="batch_norm")],
)
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
    from zoo_dc_ae.attention import LinearAttention2d, quadratic_attention

    linear = LinearAttention2d(32).core
    q, k, v = (torch.randn(2, 30, 3, 32) for _ in range(3))
    torch.testing.assert_close(linear(q, k, v, eps=1e-15), quadratic_attention(q, k, v), rtol=1e-4, atol=1e-5)
    zero = torch.zeros(1, 4, 1, 32)
    assert torch.equal(linear(zero, zero, zero + 1, eps=1e-15), zero) and torch.equal(quadratic_attention(zero, zero, zero + 1), zero)


def test_kernels_are_chosen_when_the_model_is_built() -> None:
    from zoo_dc_ae.attention import LinearAttention2d
    from zoo_dc_ae.plugin import TINY_AUTOENCODER
    from zoo_kernels import ops

    from zoo_core.loading import load

    def build(**options):
        model = load("dc-ae-f32c32-sana-1.1", weights="random", overrides=TINY_AUTOENCODER, device="cpu", **options)
        (core,) = {layer.core for layer in model.network.modules() if isinstance(layer, LinearAttention2d)}
        return model, core

    chosen, core = build()
    pinned, reference = build(kernels="linear_attention=reference,rms_norm_2d=reference")
    assert core is not reference and reference is ops.linear_attention.reference
    assert "cpu" in chosen.report.kernels["linear_attention"] and "reference" in pinned.report.kernels["linear_attention"]
    assert chosen.report.kernels["rms_norm_2d"] == "cpu" and "reference" in pinned.report.kernels["rms_norm_2d"]
    assert {m.core for m in pinned.network.modules() if isinstance(m, RMSNorm2d)} == {ops.rms_norm_2d.reference}
    x = torch.rand(1, 3, 48, 48)
    torch.testing.assert_close(chosen.encode(x), pinned.encode(x), rtol=1e-4, atol=1e-5)
