"""Recoloured pictures with colour words: what lets a small model draw "a blue apple" that no emoji set contains.

Pictures are uint8 [H, W, 4] (straight alpha).  Only pixels whose hue is close to the picture's dominant hue change, so a blue apple keeps its green leaf.
"""

from __future__ import annotations

import numpy as np

COLOURS: dict[str, tuple[int, float, float]] = {
    "red": (2, 1.0, 1.0),
    "orange": (28, 1.05, 1.05),
    "yellow": (50, 1.0, 1.12),
    "green": (120, 0.95, 0.9),
    "blue": (215, 1.0, 1.0),
    "purple": (278, 0.9, 0.95),
    "pink": (335, 0.6, 1.15),
}
"""Hue in degrees, factors of saturation and value."""

OTHER_COLOUR_WORDS = ("black", "white", "brown", "grey", "gray", "golden", "silver", "dark", "light")


def dominant_hue(rgba: np.ndarray, share: float = 0.6, coverage: float = 0.3) -> float | None:
    """Hue in degrees that holds at least ``share`` of the saturated colour, when that covers ``coverage`` of the drawing; else ``None``."""
    hue, saturation, value = _hsv(rgba)
    alpha = rgba[..., 3] / 255
    weight = np.where(saturation > 0.25, alpha * saturation * value, 0.0)
    histogram = np.bincount((hue / 10).astype(int).ravel() % 36, weight.ravel(), 36)
    spread = histogram + np.roll(histogram, 1) + np.roll(histogram, -1)
    if spread.max() < share * max(histogram.sum(), 1e-6) or histogram.sum() < coverage * max(alpha.sum(), 1.0):
        return None
    return float(spread.argmax() * 10 + 5)


def recolour(rgba: np.ndarray, hue_from: float, colour: str, width: float = 45.0) -> np.ndarray:
    """The picture with hues within ``width`` degrees of ``hue_from`` turned to ``colour``."""
    target, more_saturation, more_value = COLOURS[colour]
    hue, saturation, value = _hsv(rgba)
    distance = np.abs((hue - hue_from + 180) % 360 - 180)
    near = np.clip((width + 10 - distance) / 10, 0, 1) * (saturation > 0.08)
    turned = _rgb((hue - hue_from + target) % 360, np.clip(saturation * more_saturation, 0, 1), np.clip(value * more_value, 0, 1))
    mixed = rgba[..., :3] * (1 - near[..., None]) + turned * near[..., None]
    return np.concatenate([mixed.round().astype(np.uint8), rgba[..., 3:]], axis=-1)


def without_colour(name: str) -> str:
    """``"red apple"`` -> ``"apple"``."""
    words = [word for word in name.split() if word not in COLOURS and word not in OTHER_COLOUR_WORDS]
    return " ".join(words) or name


def _hsv(rgba: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rgb = rgba[..., :3].astype(np.float32) / 255
    high, low = rgb.max(-1), rgb.min(-1)
    span = np.maximum(high - low, 1e-6)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    hue = np.where(high == red, (green - blue) / span % 6, np.where(high == green, (blue - red) / span + 2, (red - green) / span + 4)) * 60
    hue = np.where(high - low < 1e-4, 0.0, hue)
    return hue % 360, np.where(high > 0, (high - low) / np.maximum(high, 1e-6), 0.0), high


def _rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    def channel(n: float) -> np.ndarray:
        k = (n + hue / 60) % 6
        return value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1)

    return np.stack([channel(5), channel(3), channel(1)], axis=-1) * 255
