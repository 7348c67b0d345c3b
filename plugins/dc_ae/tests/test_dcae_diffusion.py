"""Class-conditional models: generation, loading of combined files, guidance, checks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from zoo_dc_ae.diffusion.layers import guided
from zoo_dc_ae.diffusion.model import make_sampler
from zoo_dc_ae.layouts import original_keymap
from zoo_dc_ae.plugin import TINY_DIFFUSION

from zoo_core.checkpoint import save_checkpoint
from zoo_core.errors import CheckpointError, ConfigError, InputError
from zoo_core.interfaces.model import ClassToImage
from zoo_core.loading import load

UVIT, USIT, DIT = (f"dc-ae-f32c32-in-1.0-{name}-in-512px" for name in ("uvit-s", "usit-h", "dit-xl"))
NAMES = [UVIT, USIT, DIT]


def tiny(name: str, **options):
    return load(name, weights="random", overrides=TINY_DIFFUSION, device="cpu", **options)


def wake(model) -> None:
    """DiT starts as the zero function: give its modulation and output some weight."""
    generator = torch.Generator().manual_seed(0)
    for value in model.network.parameters():
        if not value.any():
            value.data.normal_(0, 0.05, generator=generator)


@pytest.fixture(scope="module")
def uvit():
    return tiny(UVIT)


@pytest.mark.parametrize("name", NAMES)
def test_generate(name: str) -> None:
    model = tiny(name)
    wake(model)
    assert isinstance(model, ClassToImage)
    seen = []
    options = {"steps": 4, "guidance": 1.5, "return_latents": True}
    two = model.generate([3, 7], seed=5, callback=lambda step, total, state: seen.append(step), **options)
    assert [image.size for image in two.images] == [(16, 16)] * 2 and two.latents.shape == (2, 8, 4, 4) and two.seed == 5
    assert seen == list(range(1, len(seen) + 1)) and (name == USIT or len(seen) == 4)
    alone = model.generate(7, seed=6, **options)
    if name != USIT:  # the adaptive solver chooses its steps for the whole batch
        torch.testing.assert_close(two.latents[1:], alone.latents, rtol=1e-3, atol=1e-3)
    again = model.generate([3, 7], seed=5, **options)
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(two.images, again.images))
    other = model.generate([3, 7], seed=6, **options)
    assert not torch.equal(other.latents, two.latents)


def test_generator_and_seed_exclude_each_other(uvit) -> None:
    one = uvit.generate(1, generator=torch.Generator().manual_seed(3), steps=2, return_latents=True)
    two = uvit.generate(1, seed=3, steps=2, return_latents=True)
    assert torch.equal(one.latents, two.latents)
    with pytest.raises(InputError, match="exclude"):
        uvit.generate(1, seed=3, generator=torch.Generator())


def test_callback_may_stop_the_run(uvit) -> None:
    class Stop(Exception):
        pass

    def stop(step, total, state):
        raise Stop

    with pytest.raises(Stop):
        uvit.generate(1, steps=3, callback=stop)


@pytest.mark.parametrize("label", [-1, 10, "cat", 1.5, True, []])
def test_bad_labels(uvit, label) -> None:
    with pytest.raises(InputError):
        uvit.generate(label if isinstance(label, list) else [label], steps=1)


def test_bad_options(uvit) -> None:
    with pytest.raises(InputError, match="option 'step'"):
        uvit.generate(1, step=3)
    with pytest.raises(InputError, match="steps"):
        uvit.generate(1, steps=0)
    with pytest.raises(ConfigError, match="sampler"):
        uvit.generate(1, steps=1, sampler="euler-a")
    with pytest.raises(ConfigError, match="does not fit"):
        uvit.generate(1, steps=1, sampler="dopri5")
    with pytest.raises(InputError, match="without an autoencoder"):
        tiny(UVIT, autoencoder=False).generate(1, steps=1)
    with pytest.raises(ConfigError, match="multiple of num_heads"):
        load(UVIT, weights="random", device="cpu", overrides=TINY_DIFFUSION | {"num_heads": 5})


def test_guidance_is_one_batched_pass(uvit) -> None:
    x, t, labels = torch.randn(2, 8, 4, 4), torch.tensor([3.0, 900.0]), torch.tensor([1, 2])
    with torch.no_grad():
        conditional, unconditional = uvit.network(x, t, labels), uvit.network(x, t, torch.full_like(labels, 10))
        calls = []

        def spy(*inputs):
            calls.append(len(inputs[0]))
            return uvit.network(*inputs)

        out = guided(spy, x, t, labels, 10, 3.0, 8)
    torch.testing.assert_close(out, unconditional + 3 * (conditional - unconditional), rtol=1e-4, atol=1e-5)
    assert calls == [4]


def test_usit_against_an_independent_integrator() -> None:
    """The whole guided sampler of the flow variant against torchdiffeq at the published tolerances and against a fine SciPy solution."""
    torchdiffeq = pytest.importorskip("torchdiffeq")
    model = tiny(USIT, autoencoder=False)
    noise, labels = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 2])

    def field(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return model.predict(x, t.float().expand(2), labels, 1.5)

    ours = model.sample(labels, guidance=1.5, noise=noise)
    with torch.no_grad():
        theirs = torchdiffeq.odeint(field, noise, torch.linspace(0, 1, 250), method="dopri5", atol=1e-6, rtol=1e-3)[-1]
        fine = torchdiffeq.odeint(field, noise, torch.tensor([0.0, 1.0]), method="rk4", options={"step_size": 1 / 200})[-1]
    spread = float(fine.std())
    assert float((ours - theirs).abs().max()) < 1e-2 * spread
    assert float((ours - fine).abs().max()) < 1e-2 * spread


@pytest.mark.parametrize("name", NAMES)
def test_combined_file(name: str, tmp_path: Path) -> None:
    """One file with ``autoencoder.*`` (original layout) and ``diffusion_model.*``, as published."""
    model = tiny(name)
    wake(model)
    exported = original_keymap(model.config.autoencoder).inverse().apply(model.components["autoencoder"].state_dict())
    tensors = {f"autoencoder.{key}": exported.get(key).contiguous() for key in exported}
    tensors |= {f"diffusion_model.{key}": value.contiguous() for key, value in model.network.state_dict().items()}
    save_checkpoint(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_name": name}))
    again = load(name, weights=str(tmp_path), overrides=TINY_DIFFUSION, device="cpu")
    options = {"seed": 1, "steps": 3, "return_latents": True}
    assert torch.equal(again.generate(2, **options).latents, model.generate(2, **options).latents)
    assert set(again.report.tensors) == {"autoencoder", "diffusion_model"}
    assert set(again.report.tensors["diffusion_model"]) == set(again.network.state_dict())


def test_diffusion_file_alone(tmp_path: Path) -> None:
    model = tiny(UVIT)
    save_checkpoint({key: value.contiguous() for key, value in model.network.state_dict().items()}, tmp_path / "model.safetensors")
    again = load(UVIT, weights=str(tmp_path / "model.safetensors"), overrides=TINY_DIFFUSION, device="cpu")
    assert any("no autoencoder" in warning for warning in again.report.warnings)
    with pytest.raises(CheckpointError):
        save_checkpoint({"encoder.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
        load(UVIT, weights=str(tmp_path / "other.safetensors"), overrides=TINY_DIFFUSION, device="cpu")


@pytest.mark.parametrize("name", [UVIT, "dc-ae-f64c128-in-1.0-uvit-2b-in-512px", DIT, USIT])
def test_published_sizes_on_the_meta_device(name: str) -> None:
    model = load(name, weights="random", device="meta", autoencoder=False)
    assert model.num_parameters == model.card["parameters"]


def test_training_forward_learns_a_constant() -> None:
    """A few steps of noise prediction on one latent lower the loss (the networks train, dropout of classes included)."""
    for name in (UVIT, DIT):
        model = tiny(name, autoencoder=False, gradient_checkpointing=name == UVIT)
        network = model.network.train()
        optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
        sampler = make_sampler(model.config)
        generator = torch.Generator().manual_seed(0)
        data = torch.randn(1, 8, 4, 4, generator=generator).expand(16, -1, -1, -1)
        losses = []
        for _ in range(60):
            noise = torch.randn(data.shape, generator=generator)
            x = sampler.add_noise(data, noise, 0.5)
            out = network(x, torch.full((16,), 500.0), torch.zeros(16, dtype=torch.int64))[:, :8]
            loss = (out - noise).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
