"""Texture, light, lens and sensor: what turns flat colours into a photograph of sorts."""

from __future__ import annotations

import functools
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from zoo_sparse_refine.streets.canvas import Canvas
from zoo_sparse_refine.streets.classes import IGNORE

#            road walk bldg sky veg car pers pole sign mark wire rail
_GRAIN = (22, 20, 14, 4, 34, 7, 14, 10, 5, 22, 6, 8)
_BLOTCH = (14, 12, 16, 6, 24, 6, 8, 6, 3, 20, 2, 4)


@functools.lru_cache(maxsize=4)
def _noise(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Fine and coarse noise, int8, fixed; scenes shift and mirror it."""
    rng = np.random.default_rng(20240719)
    fine = rng.standard_normal((height, width), dtype=np.float32)
    fine = 0.6 * fine + 0.4 * (np.roll(fine, 1, 1) + np.roll(fine, 1, 0))
    coarse = np.zeros((height, width), np.float32)
    for cell, weight in ((4, 0.5), (16, 0.6), (64, 0.7)):
        small = rng.standard_normal((height // cell + 2, width // cell + 2), dtype=np.float32)
        coarse += weight * np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    return _bytes(fine), _bytes(coarse)


def _bytes(field: np.ndarray) -> np.ndarray:
    return np.clip(field / field.std() * 32, -127, 127).astype(np.int8)


def _moved(field: np.ndarray, rng: random.Random) -> np.ndarray:
    height, width = field.shape
    field = np.roll(field, (rng.randrange(height), rng.randrange(width)), (0, 1))
    return field[:: rng.choice((1, -1)), :: rng.choice((1, -1))]


def texture(image: np.ndarray, labels: np.ndarray, rng: random.Random) -> np.ndarray:
    """Add noise whose strength depends on the class; image uint8 [H, W, 3] -> int16."""
    fine, coarse = (_moved(field, rng) for field in _noise(*labels.shape))
    grain, blotch = np.zeros(256, np.int16), np.zeros(256, np.int16)
    grain[: len(_GRAIN)] = [round(value * rng.uniform(0.4, 1.2)) for value in _GRAIN]
    blotch[: len(_BLOTCH)] = [round(value * rng.uniform(0.4, 1.2)) for value in _BLOTCH]
    added = (fine * grain[labels] + coarse * blotch[labels]) >> 6
    return image.astype(np.int16) + added[..., None]


def tone(rng: random.Random, night: float) -> np.ndarray:
    """Exposure, contrast and colour cast as three tables, uint8 [3, 256]."""
    gain = rng.uniform(0.78, 1.2) * (1 - 0.45 * night)
    gamma, contrast = rng.uniform(0.8, 1.25), rng.uniform(0.8, 1.15)
    warm = rng.uniform(-0.08, 0.08) + 0.05 * night
    levels = (np.arange(256) / 255) ** gamma
    levels = (levels - 0.5) * contrast + 0.5
    tables = [levels * gain * (1 + warm), levels * gain, levels * gain * (1 - warm)]
    return np.stack([np.clip(table * 255, 0, 255).astype(np.uint8) for table in tables])


def bonnet(canvas: Canvas, rng: random.Random) -> None:
    """The camera's own car at the bottom edge: label 255."""
    rise = canvas.height * rng.uniform(0.03, 0.09)
    middle, half = canvas.width * rng.uniform(0.42, 0.58), canvas.width * rng.uniform(0.3, 0.6)
    box = (middle - half, canvas.height - rise, middle + half, canvas.height + rise * 2)
    ImageDraw.Draw(canvas.image).ellipse(box, fill=(34, 36, 40))
    ImageDraw.Draw(canvas.image).ellipse((box[0], box[1] + rise * 0.25, box[2], box[3] + rise), fill=(52, 54, 60))
    ImageDraw.Draw(canvas.labels).ellipse(box, fill=IGNORE)


def finish(canvas: Canvas, rng: random.Random, night: float) -> tuple[np.ndarray, np.ndarray]:
    """Picture uint8 [H, W, 3] and labels uint8 [H, W] of a drawn canvas."""
    if rng.random() < 0.3:
        bonnet(canvas, rng)
    labels = np.asarray(canvas.labels)
    pixels = np.clip(texture(np.asarray(canvas.image), labels, rng), 0, 255).astype(np.uint8)
    scale = canvas.height / 1024
    soft = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(rng.uniform(0.35, 0.75) * max(scale, 0.5)))
    soft = soft.point(tone(rng, night).reshape(-1).tolist())
    fine = _moved(_noise(*labels.shape)[0], rng)
    noise = (fine * np.int16(rng.uniform(2, 10) * (1 + night))) >> 6
    image = np.clip(np.asarray(soft).astype(np.int16) + noise[..., None], 0, 255).astype(np.uint8)
    if rng.random() < 0.5:  # drive on the other side
        image, labels = image[:, ::-1], labels[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(labels)
