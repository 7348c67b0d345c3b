"""Tiling: diffusers' way exactly, ours without seams."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn import functional as F
from zoo_dc_ae import model as model_module
from zoo_dc_ae.plugin import TINY_AUTOENCODER
from zoo_dc_ae.tiling import Tiles, tile_starts, upstream_decode, upstream_encode, windowed

from zoo_core.errors import InputError
from zoo_core.loading import load

RATIO = 32


def decode(latents: torch.Tensor) -> torch.Tensor:
    """Stand-in for a trained decoder: smooth where the latent is smooth, plus a shift that depends on what the tile holds, as global attention brings."""
    return F.interpolate(latents, scale_factor=RATIO, mode="bilinear", align_corners=False) + 0.3 * latents.mean((2, 3), keepdim=True)


def largest_step(tiled: torch.Tensor, whole: torch.Tensor) -> float:
    """Largest jump between neighbouring pixels that tiling adds."""
    change = tiled - whole
    return max(float(change.diff(dim=dim).abs().max()) for dim in (2, 3))


@pytest.mark.parametrize(("height", "width", "tile"), [(4096, 4096, 512), (1536, 4096, 1024)])
def test_seams_on_a_smooth_4k_gradient_are_at_least_four_times_smaller(height: int, width: int, tile: int) -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, height // RATIO), torch.linspace(-1, 1, width // RATIO), indexing="ij")
    latents = (x + 0.5 * y)[None, None]
    whole = F.interpolate(latents, scale_factor=RATIO, mode="bilinear", align_corners=False)
    theirs = upstream_decode(decode, latents, Tiles.of(tile, None, RATIO, "upstream"), RATIO)
    tiles = Tiles.of(tile, None, RATIO, "window")
    ours = windowed(decode, latents, tuple(s // RATIO for s in tiles.size), tuple(s // RATIO for s in tiles.stride), RATIO, 1)
    assert ours.shape == theirs.shape == whole.shape
    assert largest_step(ours, whole) * 4 < largest_step(theirs, whole)


def test_a_coder_without_context_is_reproduced_exactly_in_the_weights() -> None:
    """Weights add up to one everywhere: a pointwise coder gives the untiled result."""
    x = torch.randn(1, 2, 40, 28, dtype=torch.float32)
    out = windowed(lambda t: F.interpolate(t, scale_factor=4, mode="nearest"), x, (12, 8), (8, 4), 4, 1)
    torch.testing.assert_close(out, F.interpolate(x, scale_factor=4, mode="nearest"), rtol=1e-5, atol=1e-5)
    out = windowed(lambda t: F.avg_pool2d(t, 4), x, (12, 8), (8, 4), 1, 4)
    torch.testing.assert_close(out, F.avg_pool2d(x, 4), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("length", "tile", "stride"), [(128, 16, 12), (17, 16, 12), (16, 16, 12), (5, 16, 12), (100, 7, 7), (33, 8, 1)])
def test_tiles_cover_everything(length: int, tile: int, stride: int) -> None:
    starts = tile_starts(length, tile, stride)
    covered = {position for start in starts for position in range(start, min(start + tile, length))}
    assert covered == set(range(length))
    if length > tile:
        assert starts[-1] + tile == length
        assert max(b - a for a, b in itertools.pairwise(starts)) <= stride
        assert len(starts) == math.ceil((length - tile) / stride) + 1


@pytest.mark.slow
def test_upstream_way_matches_diffusers_at_odd_sizes() -> None:
    """diffusers itself, on a picture whose sides are no multiples of anything (recorded cases cover the usual sizes)."""
    diffusers = pytest.importorskip("diffusers")
    from zoo_dc_ae.layouts import diffusers_keymap
    from zoo_dc_ae.published import to_diffusers

    ours = load("dc-ae-f32c32-sana-1.1", weights="random", overrides=TINY_AUTOENCODER, device="cpu")
    data = to_diffusers(ours.config)
    data.pop("_class_name")
    theirs = diffusers.AutoencoderDC(**data).eval()
    exported = diffusers_keymap(ours.config).inverse().apply(ours.network.state_dict())
    theirs.load_state_dict({key: exported.get(key) for key in exported})
    theirs.enable_tiling(tile_sample_min_height=16, tile_sample_min_width=24, tile_sample_stride_height=12, tile_sample_stride_width=16)
    tiles = Tiles((16, 24), (12, 16))
    image, latents = torch.rand(1, 3, 44, 39) * 2 - 1, torch.randn(1, 8, 11, 9)
    with torch.no_grad():
        torch.testing.assert_close(upstream_encode(ours.network.encode, image, tiles, 4), theirs.encode(image).latent, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(upstream_decode(ours.network.decode, latents, tiles, 4), theirs.decode(latents).sample, rtol=1e-4, atol=1e-4)


def test_large_pictures_are_tiled_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "LARGE", 32)
    monkeypatch.setattr(model_module, "DEFAULT_TILE", 16)
    model = load("dc-ae-f32c32-sana-1.1", weights="random", overrides=TINY_AUTOENCODER, device="cpu")
    image = torch.rand(1, 3, 40, 24) * 2 - 1
    assert torch.equal(model.encode(image), model.encode(image, tiling="exact", tile=16))
    torch.testing.assert_close(model.encode(image), model.encode(image, tiling="off"), rtol=1e-4, atol=1e-4)
    latents = model.encode(image)
    torch.testing.assert_close(model.decode(latents), model.decode(latents, tiling="off"), rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(model_module.memory, "available_bytes", lambda device: 1000)  # too little for the deep stages of the whole picture
    assert torch.equal(model.encode(image), model.encode(image, tiling="window", tile=16))
    monkeypatch.undo()
    monkeypatch.setattr(model_module, "LARGE", 32)
    monkeypatch.setattr(model_module, "DEFAULT_TILE", 16)
    small = image[..., :32, :]
    assert torch.equal(model.encode(small), model.encode(small, tiling="off"))
    latents = model.encode(image)
    assert model.decode(latents).shape == image.shape


def test_bad_tiles() -> None:
    for size, stride in ((512, 600), (16, None), (512, 0)):
        with pytest.raises(InputError):
            Tiles.of(size, stride, 32, "window")
    with pytest.raises(InputError, match="multiples"):
        Tiles.of(500, 400, 32, "window")
