"""Configuration; ``zoo.load("dct-f8c12", overrides={"luma": 4})`` is checked against it."""

from __future__ import annotations

from dataclasses import dataclass

from zoo_core.errors import ConfigError


@dataclass
class CodecConfig:
    """Which coefficients of a block are kept.

    Attributes:
        block: Side of a block in pixels (and the ratio of picture to latent).
        luma: Kept coefficients of the brightness channel, lowest frequencies first (zigzag order); at most block squared.
        chroma: Kept coefficients of each of the two colour channels.
        scaling_factor: Diffusion models see ``latent * scaling_factor``.
    """

    block: int = 8
    luma: int = 8
    chroma: int = 2
    scaling_factor: float = 1.0

    @property
    def latent_channels(self) -> int:
        return self.luma + 2 * self.chroma

    def check(self) -> CodecConfig:
        """Raise :class:`ConfigError` for numbers that no block has."""
        if self.block < 1 or not 1 <= self.luma <= self.block**2 or not 1 <= self.chroma <= self.block**2:
            raise ConfigError(f"block {self.block}, luma {self.luma}, chroma {self.chroma}", fix="block >= 1; luma and chroma between 1 and block squared")
        return self
