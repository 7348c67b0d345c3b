"""The autoencoder handle: the task protocol ``ImageAutoencoder`` with tiling, padding and checks."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from zoo_core.errors import DeviceError, InputError
from zoo_core.interfaces.model import ImageResult, Model
from zoo_dc_ae import exact, memory
from zoo_dc_ae import images as pictures
from zoo_dc_ae import tiling as tiled
from zoo_dc_ae.autoencoder import DCAE, Taps

if TYPE_CHECKING:
    from PIL.Image import Image

    from zoo_core.interfaces.weights import LoadReport
    from zoo_core.specs import ModelSpec
    from zoo_dc_ae.config import AutoencoderConfig

LARGE = 2048
"""With ``tiling="auto"``: pictures with a longer side than this are tiled (pixels)."""
DEFAULT_TILE = 1024


class Autoencoder(Model):
    """DC-AE as the task protocol ``ImageAutoencoder``.

    Attributes:
        ratio: Picture pixels per latent pixel along one side.
        latent_channels: Channels of the latent.
        scaling_factor: Diffusion models see ``latent * scaling_factor``; :meth:`encode` and :meth:`decode` work with raw latents.
    """

    def __init__(self, spec: ModelSpec, config: AutoencoderConfig, module: DCAE, report: LoadReport | None = None) -> None:
        super().__init__(spec, config, {"autoencoder": module}, report)
        self.ratio = config.ratio
        self.latent_channels = config.latent_channels
        self.scaling_factor = config.scaling_factor

    @property
    def network(self) -> DCAE:
        """The module."""
        return self.components["autoencoder"]

    def compile(self, **options: Any) -> Autoencoder:
        """``torch.compile`` encoder and decoder in place (lazily, at their first call)."""
        self.network.encoder.compile(**options)
        self.network.decoder.compile(**options)
        return self

    # -- tensors ---------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(
        self,
        images: torch.Tensor,
        *,
        pad: bool = False,
        tiling: str = "auto",
        tile: int | tuple[int, int] | None = None,
        stride: int | tuple[int, int] | None = None,
        taps: Taps | None = None,
        **unknown: Any,
    ) -> torch.Tensor:
        """Raw latents [B, latent_channels, H/ratio, W/ratio] of ``images`` [B, 3, H, W] in [-1, 1].

        Args:
            images: Any floating dtype, any device; moved and cast to the model's.
            pad: Extend sides that are not multiples of ``ratio`` by reflection at right and bottom (the latent then has the rounded-up size).
            tiling: ``"off"``, ``"exact"``, ``"window"``, ``"upstream"`` (see :mod:`zoo_dc_ae.tiling`) or ``"auto"``: above 2048 pixels ``"exact"`` if the
                memory allows it, else ``"window"``; below, off.
            tile, stride: In pixels; default 1024 (512 for ``"upstream"``), and 3/4 (7/8) of it.
            taps: Receives the output of every encoder stage (untiled only).

        Raises:
            InputError: Wrong shape, dtype, range or size.
            NotEnoughMemoryError: The estimate exceeds the free memory.
            DeviceError: The result is not finite (float16 overflow).
        """
        _no_options("encode", unknown)
        self._check_images(images)
        images = images.to(device=self.device, dtype=self.dtype)
        if pad:
            images = pictures.pad_reflect(images, self.ratio)
        mode, tiles = self._tiling(images.shape[-2], images.shape[-1], tiling, tile, stride, "encode", images.shape[0])
        if mode != "upstream":
            self._check_sides(images.shape[-2], images.shape[-1])
        self._check_memory("encode", images.shape[0], images.shape[-2:], mode, tiles)
        network = self.network
        if tiles is None:
            latents = network.encode(images, taps) if taps is not None else network.encode(images)
        elif mode == "exact":
            latents = exact.encode(network.encoder, network.config.encoder, images, tiles.size)
        elif mode == "upstream":
            latents = tiled.upstream_encode(network.encode, images, tiles, self.ratio)
        else:
            latents = tiled.windowed(network.encode, images, tiles.size, tiles.stride, 1, self.ratio)
        return self._finite(latents, "encoding")

    @torch.no_grad()
    def decode(
        self,
        latents: torch.Tensor,
        *,
        size: tuple[int, int] | None = None,
        tiling: str = "auto",
        tile: int | tuple[int, int] | None = None,
        stride: int | tuple[int, int] | None = None,
        taps: Taps | None = None,
        **unknown: Any,
    ) -> torch.Tensor:
        """Pictures [B, 3, h*ratio, w*ratio], not clamped, of raw ``latents`` [B, latent_channels, h, w].

        ``size`` (height, width) crops the result; the other arguments and errors are those of :meth:`encode`.
        """
        _no_options("decode", unknown)
        if not isinstance(latents, torch.Tensor) or latents.ndim != 4 or latents.shape[1] != self.latent_channels or not latents.is_floating_point():
            raise InputError(
                f"latents must be a floating [B, {self.latent_channels}, h, w] tensor, got {_describe(latents)}", fix="pass what encode() returned"
            )
        if 0 in latents.shape:
            raise InputError(f"latents are empty: {_describe(latents)}", fix="give at least one latent")
        latents = latents.to(device=self.device, dtype=self.dtype)
        height, width = (side * self.ratio for side in latents.shape[-2:])
        mode, tiles = self._tiling(height, width, tiling, tile, stride, "decode", latents.shape[0])
        self._check_memory("decode", latents.shape[0], (height, width), mode, tiles)
        network = self.network
        if tiles is None:
            images = network.decode(latents, taps) if taps is not None else network.decode(latents)
        elif mode == "exact":
            images = exact.decode(network.decoder, network.config.decoder, latents, tiles.size)
        elif mode == "upstream":
            images = tiled.upstream_decode(network.decode, latents, tiles, self.ratio)
        else:
            down = [tuple(side // self.ratio for side in pair) for pair in (tiles.size, tiles.stride)]
            images = tiled.windowed(network.decode, latents, down[0], down[1], self.ratio, 1)
        if size is not None:
            if not (0 < size[0] <= height and 0 < size[1] <= width):
                raise InputError(f"size {tuple(size)} does not lie within the decoded {height}x{width} pixels", fix="give the size of the encoded picture")
            images = images[..., : size[0], : size[1]]
        return self._finite(images, "decoding")

    def estimate_memory(self, height: int, width: int, *, what: str = "decode", batch: int = 1) -> int:
        """Peak bytes of activations without tiling (``what``: ``"encode"`` or ``"decode"``)."""
        return memory.estimate(self.config, height, width, what=what, batch=batch, dtype=self.dtype)

    # -- pictures --------------------------------------------------------------------------------------------------------------

    def reconstruct(self, images: Image | str | Sequence[Image | str], *, return_latents: bool = False, **options: Any) -> ImageResult:
        """Pictures of any size and mode through encoder and decoder; the results have the same sizes.

        Args:
            images: PIL images or file names, one or several (sizes may differ; each runs by itself).
            return_latents: Put the latents in the result (needs equal sizes).
            options: ``tiling``, ``tile``, ``stride`` of :meth:`encode` and :meth:`decode`.

        Raises:
            InputError: Not a picture.
        """
        items = pictures.as_list(images)
        if not items:
            raise InputError("reconstruct() got no picture", fix="give at least one")
        results, latents, seconds = [], [], {"encode": 0.0, "decode": 0.0}
        for item in items:
            picture = pictures.open_picture(item)
            started = time.perf_counter()
            latent = self.encode(pictures.to_tensor(picture)[None], pad=True, **options)
            seconds["encode"] += time.perf_counter() - started
            started = time.perf_counter()
            results += pictures.to_pictures(self.decode(latent, size=(picture.height, picture.width), **options))
            seconds["decode"] += time.perf_counter() - started
            latents.append(latent)
        if return_latents and len({latent.shape for latent in latents}) > 1:
            raise InputError("latents of pictures of different sizes cannot be stacked", fix="reconstruct them one by one")
        stacked = torch.cat(latents) if return_latents else None
        return ImageResult(images=results, latents=stacked, seconds=seconds, info={"sizes": [picture.size for picture in results]})

    # -- checks ----------------------------------------------------------------------------------------------------------------

    def _check_images(self, images: Any) -> None:
        if not isinstance(images, torch.Tensor) or images.ndim != 4 or images.shape[1] != self.config.in_channels:
            raise InputError(
                f"images must be a [B, {self.config.in_channels}, H, W] tensor, got {_describe(images)}", fix="stack pictures, or use reconstruct()"
            )
        if not images.is_floating_point():
            raise InputError(f"images have dtype {str(images.dtype)[6:]}", fix="give floats in [-1, 1]: images.float() / 127.5 - 1")
        if 0 in images.shape:
            raise InputError(f"images are empty: {_describe(images)}", fix="give at least one picture")
        largest = float(images.abs().amax())
        if not largest < 2.0:
            what = "holds values that are not finite" if largest != largest or largest == float("inf") else f"reaches {largest:g}"
            raise InputError(f"images are expected in [-1, 1]; the tensor {what}", fix="scale 0..255 by x / 127.5 - 1, or 0..1 by 2 * x - 1")

    def _check_sides(self, height: int, width: int) -> None:
        if height % self.ratio or width % self.ratio:
            raise InputError(
                f"picture of {height}x{width} pixels: the sides must be multiples of {self.ratio}",
                fix="pass pad=True and decode(..., size=(height, width)), or use reconstruct()",
            )

    def _tiling(self, height: int, width: int, mode: str, tile: Any, stride: Any, what: str, batch: int) -> tuple[str, tiled.Tiles | None]:
        if mode not in tiled.MODES:
            raise InputError(f"tiling {mode!r} is unknown", fix=f"choose from {', '.join(tiled.MODES)}")
        if mode == "auto":
            mode = "exact" if tile is not None or max(height, width) > LARGE else "off"
            if mode == "exact":
                side = tile or DEFAULT_TILE
                needed = self._needed(what, batch, (height, width), mode, (side, side) if isinstance(side, int) else side)
                free = memory.available_bytes(self.device)
                mode = "exact" if free is None or needed <= free else "window"
        if mode == "off":
            return mode, None
        default = 512 if mode == "upstream" else -(-DEFAULT_TILE // self.ratio) * self.ratio
        tiles = tiled.Tiles.of(tile or default, stride, self.ratio, mode)
        return mode, tiles if height > tiles.size[0] or width > tiles.size[1] else None

    def _needed(self, what: str, batch: int, sides: Sequence[int], mode: str, tile: tuple[int, int] | None) -> int:
        """Estimated bytes of activations."""
        if mode == "exact" and tile is not None:
            return memory.estimate_exact(self.config, sides[0], sides[1], tile, what=what, batch=batch, itemsize=self.dtype.itemsize)
        height, width = (min(side, limit) for side, limit in zip(sides, tile)) if tile else sides
        return self.estimate_memory(height, width, what=what, batch=batch)

    def _check_memory(self, what: str, batch: int, sides: Sequence[int], mode: str, tiles: tiled.Tiles | None) -> None:
        needed = self._needed(what, batch, sides, mode, tiles.size if tiles else None)
        if needed > 2**28:
            memory.check_fits(needed, self.device, f"{what} of {batch} x {sides[0]}x{sides[1]} pixels")

    def _finite(self, result: torch.Tensor, what: str) -> torch.Tensor:
        if self.dtype == torch.float16 and not bool(torch.isfinite(result).all()):
            raise DeviceError(f"{what} with {self.name} overflowed in float16", fix="load it with dtype='bfloat16' or dtype='float32'")
        return result


def warn_float16(name: str) -> str:
    """Warn, once per place, that a model overflows in float16; returns the text for the load report."""
    text = f"{name} is known to overflow in float16; use bfloat16 or float32"
    warnings.warn(text, stacklevel=3)
    return text


def _describe(value: Any) -> str:
    return f"{str(value.dtype)[6:]} {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__


def _no_options(method: str, unknown: dict[str, Any]) -> None:
    if unknown:
        raise InputError(f"{method}() does not know the option {next(iter(unknown))!r}", fix="see help(Autoencoder)")
