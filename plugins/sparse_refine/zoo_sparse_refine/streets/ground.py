"""Sky, road, sidewalks, lane marks and the shadows on them."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from zoo_sparse_refine.streets.canvas import Canvas, Colour, Solid, shade, vary
from zoo_sparse_refine.streets.classes import BUILDING, MARK, ROAD, SIDEWALK, SKY, VEGETATION

NEAR, FAR = 1.0, 400.0


@dataclass(slots=True)
class Plan:
    """The street from above, metres; x of the camera is 0.

    Attributes:
        left, right: Edges of the road (left is negative).
        walk_left, walk_right: Widths of the sidewalks.
        lanes: Number of lanes.
        verge: Width of grass between sidewalk and houses (0: none).
    """

    left: float
    right: float
    walk_left: float
    walk_right: float
    lanes: int
    verge: float

    @property
    def lane(self) -> float:
        return (self.right - self.left) / self.lanes


def make_plan(rng: random.Random) -> Plan:
    lanes = rng.choice((2, 2, 3, 4))
    width = lanes * rng.uniform(2.8, 3.5)
    mine = rng.randrange((lanes + 1) // 2, lanes) if lanes > 1 else 0
    left = -(mine + rng.uniform(0.35, 0.65)) * width / lanes
    return Plan(left, left + width, rng.uniform(1.8, 5), rng.uniform(1.8, 5), lanes, rng.choice((0, 0, rng.uniform(1, 6))))


def sky(canvas: Canvas, rng: random.Random, top: Colour, bottom: Colour) -> None:
    """Gradient with clouds, over the whole picture."""
    height, width = canvas.height, canvas.width
    rows = np.clip(np.arange(height, dtype=np.float32) / max(canvas.camera.centre[1], 1), 0, 1)[:, None, None]
    colours = np.asarray(top, np.float32) * (1 - rows) + np.asarray(bottom, np.float32) * rows
    small = np.random.default_rng(rng.getrandbits(32)).random((12, 20), dtype=np.float32)
    clouds = Image.fromarray((small * 255).astype(np.uint8)).resize((width // 8, height // 8), Image.Resampling.BICUBIC)
    amount = rng.uniform(0, 1.6)
    mask = np.asarray(clouds.resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255
    mask = np.clip((mask - 0.5) * amount, 0, 0.6)[..., None]
    bright = rng.uniform(0.85, 1.0) * max(*bottom, 150)
    canvas.image.paste(Image.fromarray((colours * (1 - mask) + bright * mask).astype(np.uint8)))
    canvas.labels.paste(SKY, (0, 0, width, height))


def skyline(canvas: Canvas, rng: random.Random) -> None:
    """Distant hills, trees and houses at the horizon."""
    x0, horizon = 0.0, canvas.camera.centre[1]
    unit = canvas.height / 1024
    hills = [(0.0, horizon + 4 * unit)]
    for i in range(33):
        hills.append((i * canvas.width / 32, horizon - rng.uniform(4, 30) * unit))
    hills.append((canvas.width, horizon + 4 * unit))
    canvas.flat(hills, (86, 104, 84), VEGETATION, 160)
    while x0 < canvas.width:
        width = rng.uniform(20, 90) * unit
        if rng.random() < 0.55:
            top = horizon - rng.uniform(10, 75) * unit
            canvas.flat(
                [(x0, horizon + 3 * unit), (x0, top), (x0 + width, top), (x0 + width, horizon + 3 * unit)], vary(rng, (140, 132, 126), 25), BUILDING, 120
            )
        x0 += width


def _strip(canvas: Canvas, left: float, right: float, near: float, far: float, colour: Colour, label: int, height: float = 0.0) -> None:
    canvas.polygon(((left, height, near), (right, height, near), (right, height, far), (left, height, far)), colour, label, z=min(near + 8, far))


def ground(canvas: Canvas, rng: random.Random, plan: Plan) -> None:
    """Grass to both sides, sidewalks with kerbs and slabs, road with patches, cracks and marks."""
    asphalt = vary(rng, (98, 98, 100), 18)
    slabs = vary(rng, rng.choice(((150, 146, 140), (132, 128, 126), (158, 138, 124))), 14)
    bands = [(NEAR, 6), (6, 14), (14, 30), (30, 70), (70, FAR)]  # haze grows with distance
    for near, far in bands:
        _strip(canvas, -120, 120, near, far, (92, 110, 62) if plan.verge else slabs, VEGETATION if plan.verge else SIDEWALK)
        _strip(canvas, plan.left - plan.walk_left, plan.right + plan.walk_right, near, far, slabs, SIDEWALK)
        _strip(canvas, plan.left, plan.right, near, far, asphalt, ROAD)
    for _ in range(rng.randrange(2, 9)):  # patches of other asphalt
        x, z = rng.uniform(plan.left, plan.right - 1), rng.uniform(3, 50)
        _strip(canvas, x, min(x + rng.uniform(0.5, 3), plan.right), z, z + rng.uniform(1, 8), shade(asphalt, rng.uniform(0.82, 1.12)), ROAD)
    for _ in range(rng.randrange(0, 8)):  # cracks: thin, dark, and still road
        x, z = rng.uniform(plan.left, plan.right), rng.uniform(3, 25)
        points = [canvas.camera.project((min(max(x + rng.uniform(-0.4, 0.4), plan.left), plan.right), 0, z + i * 0.7)) for i in range(7)]
        canvas.line(points, canvas.camera.pixels(0.03, z + 2), shade(asphalt, 0.55), ROAD, z)
    for x in (plan.left, plan.right):
        out = -1 if x < 0 else 1
        for near, far in bands[:4]:
            _strip(canvas, min(x, x + out * 0.18), max(x, x + out * 0.18), near, far, shade(slabs, 1.2), SIDEWALK)
            _strip(canvas, min(x, x - out * 0.3), max(x, x - out * 0.3), near, far, shade(asphalt, 0.8), ROAD)
        for i in range(3, 42):  # joints of the slabs
            z = i * 1.0
            edge = x + out * (plan.walk_left if out < 0 else plan.walk_right)
            points = [canvas.camera.project((x + out * 0.2, 0, z)), canvas.camera.project((edge, 0, z))]
            canvas.line(points, 1, shade(slabs, 0.86), SIDEWALK, z)
    marks(canvas, rng, plan)
    for _ in range(rng.randrange(0, 4)):
        x, z = rng.uniform(plan.left + 0.5, plan.right - 0.5), rng.uniform(4, 25)
        canvas.ellipse(
            canvas.camera.project((x, 0, z)), (canvas.camera.pixels(0.35, z), canvas.camera.pixels(0.35, z) * canvas.camera.height / z), (62, 60, 58), ROAD, z
        )


def marks(canvas: Canvas, rng: random.Random, plan: Plan) -> None:
    """Dashes, edge lines, stop lines, zebra crossings, arrows; some of them worn."""
    paint = vary(rng, rng.choice(((226, 226, 222), (226, 226, 222), (214, 186, 90))), 10)
    fade = rng.uniform(0.62, 1.0)
    thick, dash = rng.uniform(0.09, 0.16), rng.choice((2.0, 3.0, 4.0))

    def strip(left: float, right: float, near: float, far: float) -> None:
        if max(near, NEAR) < far:
            _strip(canvas, left, right, max(near, NEAR), far, shade(paint, fade * rng.uniform(0.92, 1.04)), MARK)

    crossings = [rng.uniform(7, 60) for _ in range(rng.randrange(0, 3))]
    for lane in range(1, plan.lanes):
        x, z = plan.left + lane * plan.lane, rng.uniform(1, 6)
        solid = plan.lanes == 2 * lane and rng.random() < 0.35
        if solid:
            for offset in (-0.12, 0.12):
                for near, far in ((NEAR, 8), (8, 20), (20, 50), (50, 110)):
                    strip(x + offset - thick / 2, x + offset + thick / 2, near, far)
            continue
        while z < 110:
            if not any(c - 2.5 < z < c + 4 for c in crossings):
                strip(x - thick / 2, x + thick / 2, z, z + dash)
            z += dash * 2.2
    if rng.random() < 0.6:
        for x in (plan.left + 0.4, plan.right - 0.4):
            for near, far in ((NEAR, 8), (8, 20), (20, 50), (50, 110)):
                strip(x - thick / 2, x + thick / 2, near, far)
    for z in crossings:
        if rng.random() < 0.65:
            x = plan.left + 0.4
            while x + 0.5 < plan.right - 0.3:
                strip(x, x + 0.5, z, z + 3)
                x += 1.0
        strip(plan.left + plan.lane * (plan.lanes // 2) + 0.2, plan.right - 0.4, z - 1.5, z - 1.1)
    for lane in range(plan.lanes):
        if rng.random() < 0.3:
            x, z = plan.left + (lane + 0.5) * plan.lane, rng.uniform(6, 25)
            strip(x - 0.08, x + 0.08, z, z + 2.2)
            tip: list[Solid] = [(x - 0.35, 0, z + 2.2), (x + 0.35, 0, z + 2.2), (x, 0, z + 3.4)]
            canvas.polygon(tip, shade(paint, fade), MARK)


def shadows(canvas: Canvas, rng: random.Random, casts: list[list[Solid]], plan: Plan, strength: float) -> None:
    """Darken the ground below polygons given in metres (and along one row of houses)."""
    if strength < 0.05:
        return
    mask = Image.new("L", canvas.image.size, 255)
    draw, dark = ImageDraw.Draw(mask), int(255 * (1 - strength))
    if rng.random() < 0.5:
        side = rng.choice((plan.left - 30, plan.right + 30))
        edge = plan.left + rng.uniform(0, 1) * (plan.right - plan.left)
        at, points = NEAR, []
        while at < 120:
            length = rng.uniform(6, 20)
            jump = edge + rng.uniform(-2, 2)
            points += [canvas.camera.project((jump, 0, at)), canvas.camera.project((jump, 0, at + length))]
            at += length
        draw.polygon([*points, canvas.camera.project((side, 0, at)), canvas.camera.project((side, 0, NEAR))], fill=dark)
    for cast in casts:
        draw.polygon([canvas.camera.project(p) for p in cast], fill=dark)
    horizon = int(canvas.camera.centre[1])
    box = (0, horizon, canvas.width, canvas.height)
    soft = mask.crop(box).filter(ImageFilter.BoxBlur(2))
    canvas.image.paste(ImageChops.multiply(canvas.image.crop(box), Image.merge("RGB", (soft, soft, soft))), box)
