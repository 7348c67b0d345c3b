"""Camera, colours and the pair of pictures (image and labels) that every object is drawn on."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

Colour = tuple[float, float, float]
Point = tuple[float, float]
Solid = tuple[float, float, float]
"""Metres: x to the right, y up from the ground, z ahead of the camera."""


@dataclass(frozen=True, slots=True)
class Camera:
    """Pinhole camera that looks along the street.

    Attributes:
        focal: Focal length in pixels.
        centre: Vanishing point of the street (column, row) in pixels.
        height: Metres above the ground.
    """

    focal: float
    centre: Point
    height: float

    def project(self, point: Solid) -> Point:
        """Pixel (column, row) of a point with z > 0."""
        x, y, z = point
        scale = self.focal / z
        return self.centre[0] + scale * x, self.centre[1] + scale * (self.height - y)

    def pixels(self, metres: float, z: float) -> float:
        """How many pixels a length is at distance z."""
        return metres * self.focal / z


def shade(colour: Colour, factor: float) -> Colour:
    """The colour, brighter or darker."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """``share`` of the second colour."""
    return tuple(a + (b - a) * share for a, b in zip(first, second))  # type: ignore[return-value]


def vary(rng: random.Random, colour: Colour, amount: float = 12) -> Colour:
    """A nearby colour: brightness and channels move."""
    light = rng.uniform(-amount, amount)
    return tuple(c + light + rng.uniform(-amount / 2, amount / 2) for c in colour)  # type: ignore[return-value]


class Canvas:
    """RGB picture and label map of one size; what is drawn later hides what was drawn before.

    Nothing is smoothed here, so edges of the label map and of the picture are the same; the picture gets its softness at the end (:mod:`.finish`).
    """

    def __init__(self, width: int, height: int, camera: Camera, haze: Colour, visibility: float) -> None:
        self.width, self.height, self.camera = width, height, camera
        self.image = Image.new("RGB", (width, height))
        self.labels = Image.new("L", (width, height))
        self.haze, self.visibility = haze, visibility
        self._paint, self._mark = ImageDraw.Draw(self.image), ImageDraw.Draw(self.labels)

    def tint(self, colour: Colour, z: float) -> tuple[int, int, int]:
        """The colour at distance z, with haze, as bytes."""
        share = 1 - math.exp(-z / self.visibility)
        return tuple(min(max(int(c + (h - c) * share), 0), 255) for c, h in zip(colour, self.haze))  # type: ignore[return-value]

    def flat(self, points: Sequence[Point], colour: Colour, label: int, z: float = 0.0) -> None:
        """Polygon in pixels."""
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        if max(xs) < 0 or min(xs) >= self.width or max(ys) < 0 or min(ys) >= self.height:
            return
        self._paint.polygon(points, fill=self.tint(colour, z))
        self._mark.polygon(points, fill=label)

    def polygon(self, points: Iterable[Solid], colour: Colour, label: int, z: float | None = None) -> None:
        """Polygon in metres; haze by its mean distance unless ``z`` is given."""
        solid = list(points)
        distance = sum(p[2] for p in solid) / len(solid) if z is None else z
        self.flat([self.camera.project(p) for p in solid], colour, label, distance)

    def ellipse(self, centre: Point, radii: Point, colour: Colour, label: int, z: float = 0.0) -> None:
        """Axis-parallel ellipse in pixels; at least one pixel."""
        (x, y), (a, b) = centre, radii
        if x + a < 0 or x - a >= self.width or y + b < 0 or y - b >= self.height:
            return
        box = (x - a, y - b, x + a, y + b)
        self._paint.ellipse(box, fill=self.tint(colour, z))
        self._mark.ellipse(box, fill=label)

    def line(self, points: Sequence[Point], width: float, colour: Colour, label: int, z: float = 0.0) -> None:
        """Polyline in pixels; at least one pixel wide."""
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        if max(xs) < 0 or min(xs) >= self.width or max(ys) < 0 or min(ys) >= self.height:
            return
        thick = max(round(width), 1)
        self._paint.line(points, fill=self.tint(colour, z), width=thick)
        self._mark.line(points, fill=label, width=thick)

    def rod(self, first: Solid, second: Solid, thickness: float, colour: Colour, label: int) -> None:
        """Straight rod in metres, thicker where it is nearer."""
        a, b = self.camera.project(first), self.camera.project(second)
        wide_a, wide_b = self.camera.pixels(thickness, first[2]), self.camera.pixels(thickness, second[2])
        z = (first[2] + second[2]) / 2
        if max(wide_a, wide_b) < 1.6:
            self.line([a, b], 1, colour, label, z)
            return
        dx, dy = b[0] - a[0], b[1] - a[1]
        norm = math.hypot(dx, dy) or 1.0
        nx, ny = -dy / norm / 2, dx / norm / 2
        self.flat(
            [
                (a[0] + nx * wide_a, a[1] + ny * wide_a),
                (b[0] + nx * wide_b, b[1] + ny * wide_b),
                (b[0] - nx * wide_b, b[1] - ny * wide_b),
                (a[0] - nx * wide_a, a[1] - ny * wide_a),
            ],
            colour,
            label,
            z,
        )
