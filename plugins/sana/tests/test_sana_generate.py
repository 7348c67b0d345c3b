"""The task protocol on a tiny random pipeline."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from zoo_sana.layers import relu_linear_attention
from zoo_sana.model import Sana
from zoo_sana.sizes import nearest_bin, resize_and_crop
from zoo_sana.transformer import sincos_grid

from zoo_core.errors import InputError
from zoo_core.interfaces import TextToImage
from zoo_core.loading import load
from zoo_core.samplers import SCM, FlowEuler


class TinyAutoencoder:
    """Stands for any model of the task image-autoencoder: 4x, nearest."""

    ratio, latent_channels, scaling_factor = 4, 4, 0.5

    def encode(self, images: torch.Tensor, **_: Any) -> torch.Tensor:
        pooled = torch.nn.functional.avg_pool2d(images, 4)
        return torch.cat((pooled, pooled[:, :1]), 1)

    def decode(self, latents: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.nn.functional.interpolate(latents[:, :3], scale_factor=4)


def tiny(**options: Any) -> Sana:
    shape = {"in_channels": 4, "out_channels": 4, "heads": 4, "head_dim": 8, "cross_heads": 2, "layers": 3, "caption_channels": 32, "sample_size": 8}
    overrides = {"transformer": {**shape, **options.pop("transformer", {})}, "text_tokens": 24, "instruction": False}
    model = load("sana-0.6b-1024", weights="random", device="cpu", dtype="float32", overrides=overrides, **options)
    model.components["autoencoder"] = TinyAutoencoder()
    return model


@pytest.fixture(scope="module")
def model() -> Sana:
    return tiny()


RUN: dict[str, Any] = {"steps": 3, "height": 32, "width": 40, "binning": False}


def test_protocol_result_and_sizes(model: Sana) -> None:
    assert isinstance(model, TextToImage)
    steps: list[int] = []
    result = model.generate(["a cat", "a much longer prompt about a dog"], seed=1, callback=lambda i, n, s: steps.append(i), **RUN)
    assert [image.size for image in result.images] == [(40, 32)] * 2
    assert result.latents is not None
    assert result.latents.shape == (2, 4, 8, 10)
    assert result.latents.dtype == torch.float32
    assert steps == [1, 2, 3]
    assert set(result.seconds) == {"text", "denoise", "decode"}


def test_same_seed_same_picture_and_batches_equal_singles(model: Sana) -> None:
    both = model.generate(["a cat", "a dog with a hat"], seed=5, output="latent", **RUN).latents
    first = model.generate("a cat", seed=5, output="latent", **RUN).latents
    second = model.generate("a dog with a hat", seed=6, output="latent", **RUN).latents
    torch.testing.assert_close(both, torch.cat((first, second)), atol=2e-5, rtol=0)
    assert torch.equal(first, model.generate("a cat", seed=5, output="latent", **RUN).latents)
    assert not torch.equal(first, model.generate("a cat", seed=7, output="latent", **RUN).latents)
    copies = model.generate("a cat", seed=5, images_per_prompt=2, output="latent", **RUN).latents
    torch.testing.assert_close(copies[:1], first, atol=2e-5, rtol=0)


def test_guidance_and_its_interval(model: Sana) -> None:
    plain = model.generate("a cat", seed=1, guidance=1.0, output="latent", **RUN).latents
    strong = model.generate("a cat", seed=1, guidance=6.0, output="latent", **RUN).latents
    never = model.generate("a cat", seed=1, guidance=6.0, guidance_interval=(0.0, 1e-6), output="latent", **RUN).latents
    assert not torch.allclose(plain, strong)
    torch.testing.assert_close(plain, never, atol=1e-5, rtol=0)


def test_perturbed_attention_works_with_q_k_norm_and_equals_its_definition() -> None:
    model = tiny(transformer={"qk_norm": True})
    base = model.generate("a cat", seed=1, guidance=4.0, output="latent", **RUN).latents
    pag = model.generate("a cat", seed=1, guidance=4.0, pag_scale=2.0, pag_blocks=(1,), output="latent", **RUN).latents
    assert not torch.allclose(base, pag)
    layer = model.transformer.blocks[1].attn
    x = torch.randn(2, 6, 32)
    out = layer(x, perturbed=1)
    torch.testing.assert_close(out[0], layer(x)[0])
    torch.testing.assert_close(out[1], layer.out(layer.qkv(x).chunk(3, -1)[2])[1])


def test_image_to_image_keeps_more_at_low_strength(model: Sana) -> None:
    picture = Image.new("RGB", (40, 32), (200, 30, 30))
    start = model._encode_image(picture, (32, 40), 1)
    near = model.generate("a cat", seed=1, image=picture, strength=0.34, output="latent", **RUN).latents
    far = model.generate("a cat", seed=1, image=picture, strength=1.0, output="latent", **RUN).latents
    assert (near - start).abs().mean() < (far - start).abs().mean()


def test_other_samplers_sigmas_and_start_noise(model: Sana) -> None:
    noise = torch.randn(1, 4, 8, 10, generator=torch.Generator().manual_seed(5))
    own = model.generate("a cat", latents=noise, output="latent", **RUN).latents
    assert torch.equal(own, model.generate("a cat", seed=5, output="latent", **RUN).latents)
    euler = model.generate("a cat", latents=noise, sampler=FlowEuler(3.0), output="latent", **RUN).latents
    assert not torch.allclose(own, euler)
    custom = model.generate("a cat", latents=noise, sigmas=[1.0, 0.5], output="latent", **RUN)
    assert torch.isfinite(custom.latents).all()


def test_few_step_model_embeds_guidance_and_draws_noise_from_the_seed() -> None:
    model = tiny(transformer={"guidance_embed": True, "qk_norm": True})
    a = model.generate("a cat", seed=1, sampler=SCM(), guidance=4.5, output="latent", **{**RUN, "steps": 2}).latents
    b = model.generate("a cat", seed=1, sampler=SCM(), guidance=4.5, output="latent", **{**RUN, "steps": 2}).latents
    c = model.generate("a cat", seed=1, sampler=SCM(), guidance=2.0, output="latent", **{**RUN, "steps": 2}).latents
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)


def test_best_of_keeps_what_the_verifier_chooses(model: Sana) -> None:
    result = model.generate("a cat", seed=10, best_of=3, choose=lambda prompt, pictures: 2, **RUN)
    alone = model.generate("a cat", seed=12, **RUN)
    assert result.images[0].tobytes() == alone.images[0].tobytes()
    assert result.info["chosen_seeds"] == [12]


def test_text_cache_and_own_features(model: Sana, monkeypatch: pytest.MonkeyPatch) -> None:
    features, mask = model.encode_text(["one new prompt"])
    calls: list[int] = []
    monkeypatch.setattr(type(model.text_encoder), "features", lambda *a: calls.append(1))
    again, _ = model.encode_text(["one new prompt"])
    assert not calls
    assert torch.equal(features, again)
    monkeypatch.undo()
    own = model.generate("ignored", text=(features, mask), seed=1, output="latent", **RUN).latents
    assert torch.equal(own, model.generate("one new prompt", seed=1, output="latent", **RUN).latents)


def test_null_mask_rules_differ(model: Sana) -> None:
    own = model.generate("a cat", seed=1, output="latent", **RUN).latents
    shared = model.generate("a cat", seed=1, null_mask="shared", output="latent", **RUN).latents
    assert not torch.allclose(own, shared)


def test_control_net_with_zero_gates_changes_nothing_and_with_gates_something() -> None:
    shape = {"in_channels": 4, "out_channels": 4, "heads": 4, "head_dim": 8, "cross_heads": 2, "layers": 3, "caption_channels": 32, "sample_size": 8}
    overrides = {"transformer": shape, "text_tokens": 24, "instruction": False, "control_blocks": 2}
    model = load("sana-0.6b-controlnet-hed", weights="random", device="cpu", dtype="float32", overrides=overrides)
    model.components["autoencoder"] = TinyAutoencoder()
    picture = Image.new("RGB", (40, 32), (200, 30, 30))
    net = model.components["controlnet"]
    with torch.no_grad():
        for gate in net.controls:
            gate.weight.zero_()
            gate.bias.zero_()
    plain = model.generate("a cat", seed=1, output="latent", **RUN).latents
    silent = model.generate("a cat", seed=1, control_image=picture, output="latent", **RUN).latents
    torch.testing.assert_close(plain, silent, atol=1e-5, rtol=0)
    with torch.no_grad():
        net.controls[0].weight.normal_()
    loud = model.generate("a cat", seed=1, control_image=picture, guidance_interval=(0.5, 1.0), output="latent", **RUN).latents
    assert not torch.allclose(plain, loud)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": []}, "list of texts"),
        ({"height": 30}, "multiples of 4"),
        ({"steps": 0}, "sampling steps"),
        ({"seed": 1, "generator": torch.Generator()}, "both given"),
        ({"latents": torch.zeros(1, 4, 2, 2)}, "this request needs"),
        ({"guidance_interval": (0.8, 0.2)}, "interval"),
        ({"pag_scale": 1.0}, "needs blocks"),
        ({"negative_prompt": ["a", "b"]}, "negative prompts"),
        ({"best_of": 2}, "verifier"),
        ({"control_image": Image.new("RGB", (8, 8))}, "no ControlNet"),
        ({"null_mask": "maybe"}, "null_mask"),
        ({"gidance": 3.0}, "did you mean"),
        ({"image": "picture.png"}, "PIL picture"),
        ({"strength": 0.0, "image": Image.new("RGB", (8, 8))}, "start_at"),
    ],
)
def test_bad_input_is_named(model: Sana, options: dict[str, Any], words: str) -> None:
    arguments = {"prompt": "a cat", **RUN, **options}
    with pytest.raises(InputError) as caught:
        model.generate(**arguments)
    assert words in str(caught.value)


def test_progress_bar_and_interrupting_callback(model: Sana) -> None:
    class StopHereError(Exception):
        pass

    def stop(step: int, total: int, state: Any) -> None:
        raise StopHereError

    with pytest.raises(StopHereError):
        model.generate("a cat", callback=stop, progress=True, **RUN)


def test_compile_has_no_graph_break(model: Sana) -> None:
    net = tiny().transformer
    caption = net.caption(torch.randn(1, 5, 32), torch.ones(1, 5))
    arguments = (torch.randn(1, 4, 8, 10), caption, torch.tensor([500.0]))
    with torch.no_grad():
        expected = net(*arguments)
        compiled = torch.compile(net, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(*arguments), expected)


@pytest.mark.parametrize(("kind", "worst"), [("int8", 0.02), ("int4", 0.25)])
def test_weight_only_quantisation_reports_its_error(kind: str, worst: float) -> None:
    pytest.importorskip("torchao")
    exact, small = tiny(seed=3), tiny(seed=3, quant=kind)
    a = exact.generate("a cat", seed=1, output="latent", **RUN).latents
    b = small.generate("a cat", seed=1, output="latent", **RUN).latents
    assert 0 < (a - b).abs().mean() < a.std()
    report = small.report.cast["transformer quantisation"]
    assert 1e-4 < float(report.split("mean ")[1].split(",")[0]) < worst, report


def test_linear_attention_gives_zero_for_rows_without_features() -> None:
    q = -torch.ones(1, 3, 1, 8)
    out = relu_linear_attention(q, torch.randn(1, 3, 1, 8), torch.randn(1, 3, 1, 8))
    assert torch.equal(out, torch.zeros_like(out))


def test_size_table_and_position_grid() -> None:
    assert nearest_bin(512, 512, 16) == (512, 512)
    assert nearest_bin(1000, 2000, 32)[0] < nearest_bin(1000, 2000, 32)[1]
    assert nearest_bin(77, 99, 5) == (77, 99)
    assert resize_and_crop(torch.rand(1, 3, 40, 60), 20, 20).shape == (1, 3, 20, 20)
    small, large = sincos_grid(4, 4, 16, 4, 1.0), sincos_grid(8, 8, 16, 4, 1.0)
    torch.testing.assert_close(small.view(4, 4, 16), large.view(8, 8, 16)[::2, ::2])
