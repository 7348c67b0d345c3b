"""Heat-map of a head pattern."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def draw_pattern(alphas: np.ndarray, path: str | Path, *, title: str = "") -> Path:
    """Draw gates [layers, kv heads] (light = streaming, dark = full) with layers downwards; returns the PNG's path."""
    from PIL import Image, ImageDraw

    values = np.clip(np.asarray(alphas, dtype=np.float64), 0, 1)
    layers, heads = values.shape
    cell = max(8, min(28, 900 // max(layers, heads)))
    left, top = 46, 40
    picture = Image.new("RGB", (max(left + cell * heads + 90, 12 + 7 * len(title)), top + cell * layers + 30), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((8, 8), title, fill="black")
    light, dark = np.array([235, 240, 248]), np.array([18, 60, 130])
    for (layer, head), value in np.ndenumerate(values):
        colour = tuple(int(c) for c in light + (dark - light) * value)
        x, y = left + cell * head, top + cell * layer
        draw.rectangle((x, y, x + cell - 2, y + cell - 2), fill=colour)
    for layer in range(0, layers, max(1, layers // 16)):
        draw.text((6, top + cell * layer), f"L{layer}", fill="black")
    draw.text((left, top + cell * layers + 8), "kv-heads", fill="black")
    for i in range(5):
        value = 1 - i / 4
        y = top + i * 22
        draw.rectangle((left + cell * heads + 16, y, left + cell * heads + 34, y + 18), fill=tuple(int(c) for c in light + (dark - light) * value))
        draw.text((left + cell * heads + 40, y + 3), f"{value:.2f}", fill="black")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path
