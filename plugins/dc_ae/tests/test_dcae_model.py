"""The autoencoder handle: loading in every layout, sizes, tiling, precision, checks."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from zoo_dc_ae import layouts, memory
from zoo_dc_ae.loading import save_autoencoder
from zoo_dc_ae.plugin import TINY_AUTOENCODER

from zoo_core.errors import (
    CheckpointError,
    CheckpointMismatchError,
    ConfigError,
    DeviceError,
    InputError,
    NotEnoughMemoryError,
    UnsafeFileError,
    WeightsError,
)
from zoo_core.interfaces.model import ImageAutoencoder
from zoo_core.loading import load

SANA, IN = "dc-ae-f32c32-sana-1.1", "dc-ae-f32c32-in-1.0"
DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def tiny():
    return load(SANA, weights="random", overrides=TINY_AUTOENCODER, device="cpu")


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# -- loading ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [layouts.DIFFUSERS, layouts.ORIGINAL, layouts.NATIVE])
@pytest.mark.parametrize("style", ["tiny-sana-style", "tiny-in-style"])
def test_export_to_every_layout_and_load_again(tmp_path: Path, layout: str, style: str) -> None:
    """Published file -> module -> other layout -> module: the same tensors, the same latents; config.json beside the weights is enough."""
    first = load(SANA, weights=str(DATA / style / "checkpoint.safetensors"), device="cpu")
    if layout == layouts.ORIGINAL:  # these cases have heads of 16 channels, which that layout cannot say
        with pytest.raises(ConfigError, match="heads of 32"):
            save_autoencoder(first, tmp_path, layout=layout)
        return
    save_autoencoder(first, tmp_path / "out", layout=layout)
    again = load(IN, weights=str(tmp_path / "out"), device="cpu")
    assert again.report.layout == layout
    assert again.scaling_factor == first.scaling_factor == 0.4
    for (key, ours), (other, theirs) in zip(first.network.state_dict().items(), again.network.state_dict().items()):
        assert key == other and torch.equal(ours, theirs)
    assert set(again.report.tensors["autoencoder"]) == set(again.network.state_dict())
    assert {Path(file).parent for file in again.report.tensors["autoencoder"].values()} == {tmp_path / "out"}


def test_original_layout_to_diffusers_and_back(tmp_path: Path, tiny) -> None:
    save_autoencoder(tiny, tmp_path / "one", layout=layouts.ORIGINAL)
    save_autoencoder(load(IN, weights=str(tmp_path / "one"), device="cpu"), tmp_path / "two", layout=layouts.DIFFUSERS)
    save_autoencoder(load(IN, weights=str(tmp_path / "two"), device="cpu"), tmp_path / "three", layout=layouts.ORIGINAL)
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (tmp_path / "three" / "model.safetensors").read_bytes()
    assert json.loads((tmp_path / "one" / "config.json").read_text()) == json.loads((tmp_path / "three" / "config.json").read_text())


def test_torch_file_with_state_dict_and_no_config(tmp_path: Path, tiny) -> None:
    """Older files are .pt with a wrapped state_dict; without config.json the shapes tell the configuration."""
    keymap = layouts.original_keymap(tiny.config)
    exported = keymap.inverse().apply(tiny.network.state_dict())
    file = tmp_path / "model.pt"
    torch.save({"state_dict": {key: exported.get(key).clone() for key in exported}}, file)
    loaded = load(SANA, weights=str(file), device="cpu")
    assert torch.equal(loaded.encode(images(1, 3, 16, 16)), tiny.encode(images(1, 3, 16, 16)))
    assert any("shapes" in warning for warning in loaded.report.warnings)
    assert loaded.scaling_factor == 0.41407


def test_folder_is_recognised(tmp_path: Path, tiny) -> None:
    save_autoencoder(tiny, tmp_path / "mine")
    model = load(tmp_path / "mine", device="cpu")
    assert model.ratio == 4 and torch.equal(model.encode(images(1, 3, 8, 8)), tiny.encode(images(1, 3, 8, 8)))


def test_random_weights_are_seeded() -> None:
    one, two, other = (load(SANA, weights="random", overrides=TINY_AUTOENCODER, device="cpu", seed=seed) for seed in (3, 3, 4))
    x = images(1, 3, 8, 8)
    assert torch.equal(one.encode(x), two.encode(x)) and not torch.equal(one.encode(x), other.encode(x))


@pytest.mark.parametrize(
    ("name", "parameters", "ratio", "channels"),
    [(IN, 323356460, 32, 32), ("dc-ae-f64c128-mix-1.0", 676896140, 64, 128), ("dc-ae-f128c512-in-1.0", 1120682252, 128, 512), (SANA, 312250275, 32, 32)],
)
def test_published_sizes_on_the_meta_device(name: str, parameters: int, ratio: int, channels: int) -> None:
    model = load(name, weights="random", device="meta")
    assert model.num_parameters == parameters == model.card["parameters"]
    assert (model.ratio, model.latent_channels) == (ratio, channels)


def test_handle_pickles_by_name(tiny) -> None:
    again = pickle.loads(pickle.dumps(tiny))
    assert torch.equal(again.encode(images(1, 3, 8, 8)), tiny.encode(images(1, 3, 8, 8)))
    assert len(pickle.dumps(tiny)) < 4096


def test_bad_weights(tmp_path: Path, tiny) -> None:
    folder = tmp_path / "good"
    save_autoencoder(tiny, folder)
    file = folder / "diffusion_pytorch_model.safetensors"
    data = file.read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError):
        load(SANA, weights=str(cut), device="cpu")
    foreign = tmp_path / "foreign.safetensors"
    from safetensors.torch import load_file, save_file

    save_file({"transformer.weight": torch.zeros(2)}, foreign)
    with pytest.raises(CheckpointError, match=r"not a DC-AE autoencoder|none of the known layouts"):
        load(SANA, weights=str(foreign), device="cpu")
    tensors = load_file(file)
    tensors.pop("decoder.norm_out.bias")
    (tmp_path / "lacks").mkdir()
    save_file(tensors, tmp_path / "lacks" / "model.safetensors")
    (tmp_path / "lacks" / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(CheckpointMismatchError, match="norm_out"):
        load(SANA, weights=str(tmp_path / "lacks"), device="cpu")
    (tmp_path / "lacks" / "config.json").write_text("{broken")
    with pytest.raises(WeightsError):
        load(SANA, weights=str(tmp_path / "lacks"), device="cpu")
    with pytest.raises(WeightsError):
        load(SANA, weights=str(tmp_path / "absent"), device="cpu")
    evil = tmp_path / "evil.pt"
    import os

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "hacked"),)

    torch.save({"state_dict": Evil()}, evil)
    with pytest.raises(UnsafeFileError):
        load(SANA, weights=str(evil), device="cpu")
    assert not (tmp_path / "hacked").exists()


def test_bad_configuration() -> None:
    with pytest.raises(ConfigError, match=r"encoder\.depths"):
        load(SANA, weights="random", device="cpu", overrides={"encoder.depths": [1, 1]})
    with pytest.raises(ConfigError):
        load(SANA, weights="random", device="cpu", overrides=["encoder.depht=[1]"])
    with pytest.raises(ConfigError, match="option 'tile'"):
        load(SANA, weights="random", device="cpu", overrides=TINY_AUTOENCODER, tile=3)
    with pytest.raises(ConfigError, match="no quant"):
        load(SANA, weights="random", device="cpu", overrides=TINY_AUTOENCODER, quant="int4")


# -- use ----------------------------------------------------------------------------------------------------------------------


def test_protocol(tiny) -> None:
    assert isinstance(tiny, ImageAutoencoder)
    latents = tiny.encode(images(2, 3, 12, 20))
    assert latents.shape == (2, 8, 3, 5) and tiny.decode(latents).shape == (2, 3, 12, 20)


def test_batch_does_not_matter(tiny) -> None:
    x = images(3, 3, 24, 24)
    torch.testing.assert_close(tiny.encode(x)[1:2], tiny.encode(x[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(7, 5), (1, 1), (33, 18), (64, 16)])
def test_pictures_of_any_size(tiny, size: tuple[int, int]) -> None:
    result = tiny.reconstruct(Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)))
    assert result.images[0].size == size and result.images[0].mode == "RGB"


def test_picture_modes(tiny, tmp_path: Path) -> None:
    base = Image.new("RGB", (8, 8), (250, 10, 30))
    modes = [base, base.convert("L"), base.convert("CMYK"), base.convert("P"), base.convert("RGBA"), Image.new("I;16", (8, 8), 40000)]
    assert len(tiny.reconstruct(modes).images) == 6
    base.save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(tiny.reconstruct(str(tmp_path / "a.png")).images[0]), np.asarray(tiny.reconstruct(base).images[0]))
    rotated = Image.new("RGB", (8, 16))
    exif = rotated.getexif()
    exif[0x0112] = 6
    rotated.save(tmp_path / "r.jpg", exif=exif)
    assert tiny.reconstruct(str(tmp_path / "r.jpg")).images[0].size == (16, 8)
    (tmp_path / "no.png").write_text("not a picture")
    for bad in (str(tmp_path / "no.png"), str(tmp_path / "absent.png"), 3, []):
        with pytest.raises(InputError):
            tiny.reconstruct(bad)


def test_compile_has_no_graph_break(tiny) -> None:
    network = tiny.network
    pixels = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        latents = network.encoder(pixels)
        expected = network.decoder(latents)
        torch.testing.assert_close(torch.compile(network.encoder, backend="eager", fullgraph=True)(pixels), latents, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.compile(network.decoder, backend="eager", fullgraph=True)(latents), expected, rtol=1e-4, atol=1e-5)


def test_bad_tensors(tiny) -> None:
    good = images(1, 3, 8, 8)
    for bad, text in [
        (good[:, :2], "tensor"), (good[0], "tensor"), ((good * 127).to(torch.uint8), "dtype"), (good * 255, "expected in"), (good * float("nan"), "not finite"),
        (good[:0], "empty"), (images(1, 3, 9, 8), "multiples of 4"), (np.zeros((1, 3, 8, 8)), "ndarray"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=text):
            tiny.encode(bad)
    with pytest.raises(InputError, match="latents"):
        tiny.decode(good)
    with pytest.raises(InputError, match="size"):
        tiny.decode(tiny.encode(good), size=(9, 8))
    with pytest.raises(InputError, match="tiling"):
        tiny.encode(good, tiling="mosaic")
    with pytest.raises(InputError, match="option 'tiles'"):
        tiny.encode(good, tiles=3)
    assert tiny.encode(images(1, 3, 9, 8), pad=True).shape == (1, 8, 3, 2)
    assert torch.equal(tiny.encode(good.transpose(2, 3)), tiny.encode(good.transpose(2, 3).contiguous()))


def test_float64_and_other_dtypes_are_cast(tiny) -> None:
    torch.testing.assert_close(tiny.encode(images(1, 3, 8, 8).double()), tiny.encode(images(1, 3, 8, 8)))


def test_memory_is_checked_before_work(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device: 2**20)
    with pytest.raises(NotEnoughMemoryError, match="tiling='window'"):
        tiny.decode(torch.zeros(64, 8, 128, 128), tiling="off")


def test_estimate_grows_with_the_picture_and_shrinks_with_the_dtype() -> None:
    model = load(SANA, weights="random", device="meta")
    assert model.estimate_memory(2048, 1024) == 2 * model.estimate_memory(1024, 1024)
    half = memory.estimate(model.config, 1024, 1024, dtype=torch.bfloat16)
    assert half < model.estimate_memory(1024, 1024)
    assert abs(model.card["memory"]["per_pixel_bytes"] / memory.elements_per_pixel(model.config, "decode") / 4 - 1) < 0.05


# -- precision and options ----------------------------------------------------------------------------------------------------


def test_bfloat16_is_close(tiny, tmp_path: Path) -> None:
    save_autoencoder(tiny, tmp_path)
    half = load(SANA, weights=str(tmp_path), device="cpu", dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    exact, rough = tiny.encode(images(1, 3, 64, 64)), half.encode(images(1, 3, 64, 64)).float()
    assert float((exact - rough).abs().mean() / exact.std()) < 0.03


def test_attention_core_runs_in_float32() -> None:
    """Large values: the sum over pixels overflows float16 and loses every digit in bfloat16; the core must not."""
    from zoo_dc_ae.attention import LinearAttention2d

    torch.manual_seed(0)
    layer = LinearAttention2d(32).eval()
    x = 40 * torch.randn(1, 96, 32, 32)
    with torch.no_grad():
        exact = layer.attend(x)
        assert torch.isfinite(layer.attend(x.half())).all()
        assert float((layer.attend(x.bfloat16()).float() - layer.attend(x.bfloat16().float())).abs().max() / exact.std()) < 0.02


def test_float16_is_warned_about_and_overflow_is_an_error() -> None:
    with pytest.warns(UserWarning, match="overflow in float16"):
        model = load(SANA, weights="random", overrides=TINY_AUTOENCODER, device="cpu", dtype="float16")
    assert any("float16" in warning for warning in model.report.warnings)
    model.network.decoder.conv_out.bias.data.fill_(float("inf"))
    with pytest.raises(DeviceError, match="overflowed in float16"):
        model.decode(torch.zeros(1, 8, 2, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(SANA, weights="random", overrides=TINY_AUTOENCODER, device="cpu", dtype="bfloat16")


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    plain = load(SANA, weights="random", overrides=TINY_AUTOENCODER, device="cpu").network.train()
    saving = load(SANA, weights="random", overrides=TINY_AUTOENCODER, device="cpu", gradient_checkpointing=True).network.train()
    assert saving.encoder.gradient_checkpointing
    for network in (plain, saving):
        network(images(1, 3, 16, 16)).square().mean().backward()
    for (_, one), (_, two) in zip(plain.named_parameters(), saving.named_parameters()):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-6)


def test_channels_last_option(tiny) -> None:
    other = load(SANA, weights="random", overrides=TINY_AUTOENCODER, device="cpu", channels_last=False)
    torch.testing.assert_close(other.encode(images(1, 3, 16, 16)), tiny.encode(images(1, 3, 16, 16)), rtol=1e-4, atol=1e-5)


def test_published_config_names_a_model(tmp_path: Path) -> None:
    """The original repositories hold only {"model_name": ...}: the folder is then that model."""
    (tmp_path / "config.json").write_text(json.dumps({"model_name": "dc-ae-f64c128-in-1.0"}))
    from zoo_core.recognition import folder
    from zoo_core.registry import get_registry

    assert folder(str(tmp_path), get_registry()) == "dc-ae-f64c128-in-1.0"
