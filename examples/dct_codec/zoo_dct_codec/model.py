"""The handle that users hold: the task protocol ``ImageAutoencoder`` around the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from zoo_core.errors import InputError
from zoo_core.interfaces import ImageResult, LoadReport, Model
from zoo_core.specs import ModelSpec
from zoo_dct_codec.config import CodecConfig
from zoo_dct_codec.network import BlockTransform


class Codec(Model):
    """Pictures to latents and back; see :class:`zoo_core.interfaces.ImageAutoencoder`."""

    def __init__(self, spec: ModelSpec, config: CodecConfig, network: BlockTransform, report: LoadReport) -> None:
        super().__init__(spec, config, {"transform": network}, report)
        self.network = network
        self.ratio = config.block
        self.latent_channels = config.latent_channels
        self.scaling_factor = config.scaling_factor

    @torch.no_grad()
    def encode(self, images: torch.Tensor, **options: Any) -> torch.Tensor:
        """[B, 3, H, W] in [-1, 1] -> [B, latent_channels, H/ratio, W/ratio]; the sides must be multiples of ``ratio``.

        Raises:
            InputError: Wrong shape, size or dtype, or an unknown option.
        """
        self._check(images, 3, options)
        if images.shape[2] % self.ratio or images.shape[3] % self.ratio:
            raise InputError(f"{self.name}: pictures of {images.shape[3]} x {images.shape[2]} pixels", fix=f"pad both sides to multiples of {self.ratio}")
        return self.network.encode(images.to(self.device, self.dtype))

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, **options: Any) -> torch.Tensor:
        """[B, latent_channels, h, w] -> [B, 3, h * ratio, w * ratio], not clamped.

        Raises:
            InputError: Wrong shape or dtype, or an unknown option.
        """
        self._check(latents, self.latent_channels, options)
        return self.network.decode(latents.to(self.device, self.dtype))

    def reconstruct(self, images: Image.Image | Sequence[Image.Image], **options: Any) -> ImageResult:
        """Pictures of any size and mode through encoder and decoder; edges are repeated up to the next multiple of ``ratio`` and cut off again."""
        given = [images] if isinstance(images, Image.Image) else list(images)
        made = []
        for picture in given:
            pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None].float() / 127.5 - 1
            height, width = pixels.shape[2:]
            padded = torch.nn.functional.pad(pixels, (0, -width % self.ratio, 0, -height % self.ratio), mode="replicate")
            decoded = self.decode(self.encode(padded, **options))[0, :, :height, :width].float().cpu()
            made.append(Image.fromarray(((decoded + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()))
        return ImageResult(images=made)

    def _check(self, tensor: torch.Tensor, channels: int, options: dict[str, Any]) -> None:
        if options:
            raise InputError(f"{self.name}: unknown options {sorted(options)}", fix="leave them out")
        if not isinstance(tensor, torch.Tensor) or tensor.ndim != 4 or tensor.shape[1] != channels:
            shape = tuple(getattr(tensor, "shape", ()))
            raise InputError(f"{self.name}: expected [B, {channels}, height, width], got {shape}", fix="add a batch axis, convert to RGB")
        if not tensor.is_floating_point():
            raise InputError(f"{self.name}: expected floating-point values, got {tensor.dtype}", fix="images.float() / 127.5 - 1")
