"""Cars, people and trees."""

from __future__ import annotations

import itertools
import math
import random

from zoo_sparse_refine.streets.canvas import Canvas, Colour, Solid, shade, vary
from zoo_sparse_refine.streets.classes import CAR, PERSON, VEGETATION

PAINTS: tuple[Colour, ...] = ((184, 186, 190), (40, 42, 46), (214, 214, 212), (150, 28, 30), (36, 60, 116), (96, 100, 104), (60, 84, 66), (190, 160, 60))
CLOTHES: tuple[Colour, ...] = (
    (44, 50, 66),
    (150, 40, 44),
    (60, 96, 60),
    (196, 190, 180),
    (70, 70, 74),
    (190, 150, 60),
    (60, 100, 150),
    (120, 70, 110),
    (30, 30, 32),
)
SKINS: tuple[Colour, ...] = ((224, 184, 156), (190, 140, 108), (128, 86, 62), (90, 60, 44))

SALOON = ((0.0, 0.32), (0.0, 0.95), (0.55, 1.02), (1.05, 1.42), (2.5, 1.44), (3.3, 0.98), (4.25, 0.84), (4.3, 0.32))
HATCH = ((0.0, 0.32), (0.0, 1.0), (0.3, 1.46), (2.2, 1.5), (3.0, 1.02), (3.75, 0.9), (3.8, 0.32))
VAN = ((0.0, 0.35), (0.0, 2.1), (0.1, 2.2), (3.9, 2.2), (4.5, 1.25), (5.1, 1.1), (5.2, 0.35))


def car(canvas: Canvas, rng: random.Random, x: float, z: float, *, oncoming: bool = False) -> None:
    """A car whose near end is at distance z, its middle at x."""
    profile = rng.choice((SALOON, SALOON, HATCH, HATCH, VAN))
    paint, width = vary(rng, rng.choice(PAINTS), 14), rng.uniform(1.65, 1.9)
    length = profile[-1][0]
    spots = [(length - s if oncoming else s, t) for s, t in profile]
    if oncoming:
        spots.reverse()
    left, right = x - width / 2, x + width / 2
    near_side = left if x > 0 else right
    tops = list(itertools.pairwise(spots))
    glass = vary(rng, (44, 52, 60), 12)
    for (s1, t1), (s2, t2) in sorted(tops, key=lambda pair: -(pair[0][0] + pair[1][0])):
        rising = abs(t2 - t1) > 0.25 and min(t1, t2) > 0.6
        colour = glass if rising else shade(paint, 1.12 if abs(t2 - t1) < 0.2 else 0.9)
        inset = 0.12 if rising else 0.0
        body: list[Solid] = [(left, t1, z + s1), (right, t1, z + s1), (right, t2, z + s2), (left, t2, z + s2)]
        canvas.polygon(body, shade(paint, 0.95), CAR)
        if inset:
            panel = [(left + inset, t1, z + s1), (right - inset, t1, z + s1), (right - inset, t2, z + s2), (left + inset, t2, z + s2)]
            canvas.polygon(panel, colour, CAR)
    canvas.polygon([(near_side, t, z + s) for s, t in spots], shade(paint, 0.8), CAR)
    roof = max(t for _, t in spots)
    waist = 0.98 if roof < 1.6 else 1.25
    band = sorted(s for s, t in spots if t > waist + 0.2)
    if len(band) >= 2:
        first, last = band[0], band[-1]
        for a, b in ((first + 0.15, (first + last) / 2 - 0.06), ((first + last) / 2 + 0.06, last - 0.05)):
            canvas.polygon([(near_side, waist, z + a), (near_side, waist, z + b), (near_side, roof - 0.1, z + b), (near_side, roof - 0.1, z + a)], glass, CAR)
    for wheel in (0.75, length - 0.85):
        for radius, colour in ((0.33, (24, 24, 26)), (0.2, (120, 122, 126))):
            rim: list[Solid] = []
            for i in range(14):
                angle = math.tau * i / 14
                rim.append((near_side, max(0.33 + radius * math.sin(angle), 0), z + wheel + radius * math.cos(angle)))
            canvas.polygon(rim, colour, CAR)
    rear = 0.95 if roof < 1.6 else 1.1
    canvas.polygon([(left, 0.32, z), (right, 0.32, z), (right, rear, z), (left, rear, z)], shade(paint, 1.0), CAR)
    canvas.polygon([(left + 0.05, 0.3, z), (right - 0.05, 0.3, z), (right - 0.05, 0.46, z), (left + 0.05, 0.46, z)], (38, 38, 40), CAR)
    light: Colour = (236, 230, 200) if oncoming else (170, 20, 22)
    for a, b in ((left + 0.05, left + 0.4), (right - 0.4, right - 0.05)):
        canvas.polygon([(a, 0.7, z), (b, 0.7, z), (b, 0.86, z), (a, 0.86, z)], light, CAR)
    plate = (x - 0.26, x + 0.26)
    canvas.polygon([(plate[0], 0.5, z), (plate[1], 0.5, z), (plate[1], 0.61, z), (plate[0], 0.61, z)], (220, 218, 206), CAR)
    for a, b in ((left, left + 0.22), (right - 0.22, right)):
        canvas.polygon([(a, 0, z), (b, 0, z), (b, 0.34, z), (a, 0.34, z)], (24, 24, 26), CAR)
    if roof > 1.6:
        canvas.polygon([(left + 0.15, 1.3, z), (right - 0.15, 1.3, z), (right - 0.2, 1.95, z), (left + 0.2, 1.95, z)], glass, CAR)


def car_shadow(x: float, z: float) -> list[Solid]:
    return [(x - 1.05, 0, z - 0.2), (x + 1.05, 0, z - 0.2), (x + 1.15, 0, z + 4.3), (x - 1.15, 0, z + 4.3)]


def person(canvas: Canvas, rng: random.Random, x: float, z: float) -> None:
    """Somebody standing or walking at (x, z)."""
    tall = rng.choice((rng.uniform(1.55, 1.92), rng.uniform(1.55, 1.92), rng.uniform(1.55, 1.92), rng.uniform(0.95, 1.4)))
    top, trousers = vary(rng, rng.choice(CLOTHES), 16), vary(rng, rng.choice(CLOTHES), 14)
    skin, stride, turn = rng.choice(SKINS), rng.uniform(0.0, 0.16) * tall, rng.uniform(0.7, 1.0)

    def part(points: list[tuple[float, float]], colour: Colour) -> None:
        canvas.polygon([(x + a * tall * turn, b * tall, z) for a, b in points], colour, PERSON)

    swing = stride / tall
    part([(-0.02, 0.5), (0.10, 0.5), (0.09 + swing, 0.03), (0.03 + swing, 0.03)], trousers)
    part([(-0.10, 0.5), (0.02, 0.5), (-0.03 - swing, 0.03), (-0.09 - swing, 0.03)], shade(trousers, 0.85))
    for foot in (0.03 + swing, -0.09 - swing):
        part([(foot, 0), (foot + 0.09, 0), (foot + 0.07, 0.035), (foot, 0.035)], (30, 28, 28))
    skirt = rng.random() < 0.2
    if skirt:
        part([(-0.10, 0.55), (0.10, 0.55), (0.15, 0.3), (-0.15, 0.3)], trousers)
    arm = rng.uniform(0.0, 0.1)
    part([(0.10, 0.81), (0.15, 0.79), (0.17 + arm, 0.47), (0.13 + arm, 0.47)], shade(top, 0.88))
    part([(-0.10, 0.81), (-0.15, 0.79), (-0.17 - arm, 0.47), (-0.13 - arm, 0.47)], shade(top, 0.8))
    part([(-0.13, 0.82), (0.13, 0.82), (0.11, 0.47), (-0.11, 0.47)], top)
    part([(-0.03, 0.86), (0.03, 0.86), (0.03, 0.81), (-0.03, 0.81)], skin)
    if rng.random() < 0.35:
        side = rng.choice((-1, 1))
        part([(side * 0.13, 0.6), (side * 0.25, 0.6), (side * 0.25, 0.42), (side * 0.13, 0.42)], vary(rng, (70, 52, 40), 20))
    head = canvas.camera.project((x, 0.925 * tall, z))
    radius = canvas.camera.pixels(0.068 * tall, z)
    canvas.ellipse(head, (radius * 0.85, radius), skin, PERSON, z)
    hair = vary(rng, rng.choice(((40, 30, 24), (90, 64, 40), (170, 140, 90), (120, 116, 112))), 8)
    canvas.ellipse((head[0], head[1] - radius * 0.45), (radius * 0.86, radius * 0.62), hair, PERSON, z)


def person_shadow(x: float, z: float) -> list[Solid]:
    return [(x - 0.2, 0, z), (x + 0.2, 0, z), (x + 0.9, 0, z + 1.5), (x + 0.5, 0, z + 1.5)]


def tree(canvas: Canvas, rng: random.Random, x: float, z: float) -> None:
    """A tree: trunk, boughs and a crown of leaves; one in six is bare."""
    tall = rng.uniform(4, 11)
    spread, base = tall * rng.uniform(0.2, 0.36), tall * rng.uniform(0.3, 0.48)
    bark = vary(rng, (86, 70, 56), 12)
    canvas.rod((x, -0.05, z), (x + rng.uniform(-0.2, 0.2), base + 0.6, z), rng.uniform(0.16, 0.42), bark, VEGETATION)
    bare = rng.random() < 0.16
    for _ in range(16 if bare else 4):
        angle, reach = rng.uniform(0.25, math.pi - 0.25), rng.uniform(0.6, 1.15) * spread
        middle = (x + 0.5 * reach * math.cos(angle), base + 0.55 * reach * math.sin(angle), z)
        canvas.rod((x, base * rng.uniform(0.8, 1.1), z), middle, 0.1, bark, VEGETATION)
        for _ in range(3 if bare else 1):
            end = (middle[0] + rng.uniform(-0.6, 0.6) * reach, middle[1] + rng.uniform(0.2, 0.9) * reach, z)
            canvas.rod(middle, end, 0.045, bark, VEGETATION)
    if not bare:
        crown(
            canvas,
            rng,
            (x, base + (tall - base) / 2, z),
            (spread, (tall - base) / 2),
            vary(rng, rng.choice(((70, 98, 44), (92, 116, 54), (58, 84, 50), (126, 118, 52))), 14),
        )


def crown(canvas: Canvas, rng: random.Random, centre: Solid, radii: tuple[float, float], colour: Colour) -> None:
    """Leaves: large dark blobs inside, small light ones towards the rim."""
    size = canvas.camera.pixels(max(radii), centre[2])
    count = int(min(max(size / 2.2, 10), 110))
    z = centre[2]
    for i in range(count):
        angle, reach = rng.uniform(0, math.tau), math.sqrt(rng.random())
        big = i < count * 0.45
        reach *= 0.72 if big else 1.0
        spot = canvas.camera.project((centre[0] + radii[0] * reach * math.cos(angle), centre[1] + radii[1] * reach * math.sin(angle), z))
        radius = size * (rng.uniform(0.2, 0.42) if big else rng.uniform(0.05, 0.17))
        light = (0.72 if big else 0.92) + 0.35 * max(math.sin(angle) * reach, -0.4) + rng.uniform(-0.1, 0.12)
        canvas.ellipse(spot, (radius, radius * rng.uniform(0.7, 1.0)), shade(colour, light), VEGETATION, z)


def hedge(canvas: Canvas, rng: random.Random, x: float, near: float, far: float) -> None:
    """Bushes along the street."""
    colour, z = vary(rng, (74, 96, 48), 12), far
    while z > near:
        crown(canvas, rng, (x + rng.uniform(-0.2, 0.2), 0.5, z), (0.7, rng.uniform(0.5, 0.9)), colour)
        z -= rng.uniform(0.7, 1.2)


def tree_shadow(rng: random.Random, x: float, z: float) -> list[Solid]:
    return [(x + 2.2 * math.cos(a) + 0.8, 0, z + 1.6 * math.sin(a) + 1) for a in (math.tau * i / 9 + rng.uniform(-0.2, 0.2) for i in range(9))]
