"""What a low resolution loses: poles, signs, wires and railings."""

from __future__ import annotations

import itertools
import math
import random

from zoo_sparse_refine.streets.canvas import Canvas, Colour, Solid, shade, vary
from zoo_sparse_refine.streets.classes import POLE, RAILING, SIGN, WIRE

METALS: tuple[Colour, ...] = ((112, 114, 116), (70, 74, 76), (148, 150, 150), (52, 66, 58), (96, 84, 72))


def lamp(canvas: Canvas, rng: random.Random, x: float, z: float, reach: float) -> None:
    """Street lamp whose arm reaches ``reach`` metres over the road (signed)."""
    metal, tall = vary(rng, rng.choice(METALS), 8), rng.uniform(5, 9)
    canvas.rod((x, 0, z), (x, tall, z), rng.uniform(0.09, 0.16), metal, POLE)
    canvas.rod((x, tall - 0.05, z), (x + reach, tall + 0.35, z), 0.07, metal, POLE)
    canvas.rod((x + reach * 0.8, tall + 0.28, z), (x + reach * 1.25, tall + 0.36, z), 0.2, shade(metal, 0.8), POLE)
    canvas.rod((x, 0, z), (x, 0.9, z), 0.22, shade(metal, 0.9), POLE)


def mast(canvas: Canvas, rng: random.Random, x: float, z: float, tall: float) -> None:
    """Mast of the overhead wires with one or two cross-arms."""
    wood = vary(rng, rng.choice(((96, 78, 60), (120, 118, 114), (84, 72, 62))), 8)
    canvas.rod((x, 0, z), (x, tall, z), rng.uniform(0.16, 0.28), wood, POLE)
    for i in range(rng.choice((1, 2))):
        level = tall - 0.35 - 0.8 * i
        canvas.rod((x - 0.9, level, z), (x + 0.9, level, z), 0.11, shade(wood, 0.9), POLE)


def bollards(canvas: Canvas, rng: random.Random, x: float, near: float, far: float) -> None:
    """Row of posts on the edge of the sidewalk."""
    metal, z, gap = vary(rng, rng.choice(METALS), 8), far, rng.uniform(1.2, 2.4)
    while z > near:
        canvas.rod((x, 0, z), (x, 0.9, z), 0.11, metal, POLE)
        z -= gap


def sign(canvas: Canvas, rng: random.Random, x: float, z: float) -> None:
    """Traffic sign (sometimes two, one above the other) on a thin post."""
    metal, level = vary(rng, (136, 138, 140), 10), rng.uniform(2.0, 2.9)
    count = rng.choice((1, 1, 2))
    canvas.rod((x, 0, z), (x, level + 0.7 * count, z), rng.uniform(0.06, 0.08), metal, POLE)
    for i in range(count):
        plate(canvas, rng, (x, level + 0.35 + 0.75 * i, z), rng.uniform(0.27, 0.36), back=rng.random() < 0.12)


def plate(canvas: Canvas, rng: random.Random, centre: Solid, radius: float, *, back: bool = False) -> None:
    """The plate of a sign; ``radius`` in metres; ``back`` shows its grey rear."""
    kind, z, spot, size = rng.randrange(5), centre[2], canvas.camera.project(centre), canvas.camera.pixels(radius, centre[2])

    def shape(corners: int, scale: float, colour: Colour, phase: float) -> None:
        points = [
            (spot[0] + scale * size * math.sin(phase + math.tau * i / corners), spot[1] - scale * size * math.cos(phase + math.tau * i / corners))
            for i in range(corners)
        ]
        canvas.flat(points, colour, SIGN, z)

    if back:
        shape(14, 1.0, (118, 120, 122), 0)
    elif kind == 0:
        shape(14, 1.0, (196, 30, 34), 0)
        shape(14, 0.74, (234, 232, 226), 0)
        shape(4, 0.3, (40, 40, 44), math.pi / 4)
    elif kind == 1:
        shape(14, 1.0, (30, 72, 160), 0)
        shape(3, 0.55, (232, 234, 236), rng.choice((0, math.pi / 2, -math.pi / 2)))
    elif kind == 2:
        turn = rng.choice((0.0, math.pi))
        shape(3, 1.15, (200, 32, 36), turn)
        shape(3, 0.74, (236, 232, 222), turn)
    elif kind == 3:
        shape(8, 1.05, (190, 24, 30), math.pi / 8)
        shape(4, 0.5, (236, 236, 234), math.pi / 4)
    else:
        shape(4, 1.15, (232, 186, 40) if rng.random() < 0.5 else (36, 84, 168), rng.choice((0, math.pi / 4)))
        shape(4, 0.6, (238, 238, 234), math.pi / 4)


def guide(canvas: Canvas, rng: random.Random, x: float, z: float, side: float) -> None:
    """Large guide sign on two posts, or a traffic light."""
    if rng.random() < 0.5:
        wide, high = rng.uniform(1.4, 3), rng.uniform(0.8, 1.6)
        for offset in (0.2, 0.8):
            canvas.rod((x + side * wide * offset, 0, z), (x + side * wide * offset, 2.3 + high, z), 0.1, (120, 122, 124), POLE)
        colour = rng.choice(((30, 90, 60), (34, 70, 140), (228, 226, 216)))
        face: list[Solid] = [(x, 2.2, z), (x + side * wide, 2.2, z), (x + side * wide, 2.2 + high, z), (x, 2.2 + high, z)]
        canvas.polygon(face, colour, SIGN)
        text = (236, 236, 232) if colour[0] < 100 else (40, 40, 40)
        for i in range(3):
            level = 2.3 + high * (0.15 + 0.28 * i)
            canvas.rod((x + side * 0.15, level, z), (x + side * wide * rng.uniform(0.4, 0.9), level, z), 0.09, text, SIGN)
        return
    metal = vary(rng, (60, 62, 64), 8)
    arm = rng.uniform(1.5, 4) if rng.random() < 0.5 else 0.0
    canvas.rod((x, 0, z), (x, 5.2 if arm else 3.2, z), 0.14, metal, POLE)
    spots = [(x, 2.6)]
    if arm:
        canvas.rod((x, 5.1, z), (x - side * arm, 5.3, z), 0.1, metal, POLE)
        spots.append((x - side * arm, 4.9))
    lit = rng.randrange(3)
    for at, level in spots:
        canvas.polygon(
            [(at - 0.17, level - 0.45, z), (at + 0.17, level - 0.45, z), (at + 0.17, level + 0.45, z), (at - 0.17, level + 0.45, z)], (26, 28, 28), SIGN
        )
        for i, colour in enumerate(((50, 200, 120), (240, 180, 40), (230, 40, 40))):
            radius = canvas.camera.pixels(0.1, z)
            canvas.ellipse(canvas.camera.project((at, level - 0.28 + 0.28 * i, z)), (radius, radius), colour if i == lit else shade(colour, 0.25), SIGN, z)


def wire(canvas: Canvas, first: Solid, second: Solid, sag: float, thickness: float, colour: Colour) -> None:
    """Hanging wire between two points."""
    pieces = 14
    spots: list[Solid] = []
    for i in range(pieces + 1):
        t = i / pieces
        spots.append(
            (first[0] + (second[0] - first[0]) * t, first[1] + (second[1] - first[1]) * t - 4 * sag * t * (1 - t), first[2] + (second[2] - first[2]) * t)
        )
    for a, b in itertools.pairwise(spots):
        z = (a[2] + b[2]) / 2
        canvas.line([canvas.camera.project(a), canvas.camera.project(b)], canvas.camera.pixels(thickness, z), colour, WIRE, z * 0.5)


def railing(canvas: Canvas, rng: random.Random, style: int, colour: Colour, x: float, near: float, far: float) -> None:
    """One panel of a railing along the street, from ``near`` to ``far``."""
    top = 1.0 if style != 2 else 0.75
    canvas.rod((x, 0, far), (x, top + 0.05, far), 0.06, colour, RAILING)
    for level in {0: (top, 0.15), 1: (top, 0.55, 0.15), 2: (top,)}[style]:
        canvas.rod((x, level, near), (x, level, far), 0.045, colour, RAILING)
    if style == 0:
        bars = int((far - near) / 0.16)
        for i in range(1, bars):
            z = far - (far - near) * i / bars
            if canvas.camera.pixels(0.16, z) * abs(x) / z < 1.2:  # closer together than a pixel
                continue
            canvas.rod((x, 0.15, z), (x, top, z), 0.02, colour, RAILING)
    canvas.rod((x, 0, near), (x, top + 0.05, near), 0.06, colour, RAILING)
