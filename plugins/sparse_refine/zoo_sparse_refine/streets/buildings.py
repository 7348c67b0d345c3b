"""Houses along the street: walls in perspective with windows, shops, balconies and pipes."""

from __future__ import annotations

import random
from collections.abc import Callable

from zoo_sparse_refine.streets.canvas import Canvas, Colour, Solid, mix, shade, vary
from zoo_sparse_refine.streets.classes import BUILDING

WALLS: tuple[Colour, ...] = (
    (178, 158, 132),
    (150, 92, 74),
    (196, 188, 172),
    (132, 130, 128),
    (206, 182, 140),
    (118, 104, 96),
    (170, 176, 178),
    (186, 140, 112),
    (104, 112, 122),
)
Wall = Callable[[float, float], Solid]
"""(metres along the wall, metres up) -> point."""


class House:
    """One house: wall along the street from ``near`` to ``far`` at ``x``, and the wall that faces the camera.

    Attributes:
        near, far: Distances of its ends in metres.
        x: Where its front stands; negative on the left.
        height: Metres.
    """

    def __init__(self, rng: random.Random, near: float, far: float, x: float, night: float) -> None:
        self.near, self.far, self.x = near, far, x
        self.height = rng.choice((rng.uniform(5, 9), rng.uniform(9, 16), rng.uniform(12, 26)))
        self.colour = vary(rng, rng.choice(WALLS), 14)
        self.glass = mix((58, 66, 78), (120, 140, 160), rng.random())
        self.lit = rng.uniform(0.2, 0.5) * night
        self.bay, self.storey = rng.uniform(2.0, 3.6), rng.uniform(2.7, 3.4)
        self.window = (rng.uniform(0.35, 0.65), rng.uniform(0.45, 0.68))
        self.shop = rng.random() < 0.45
        self.balconies = rng.random() < 0.25
        self.seed = rng.random()

    def draw(self, canvas: Canvas) -> None:
        rng = random.Random(self.seed)
        side = 1 if self.x > 0 else -1
        depth = rng.uniform(8, 16)
        self._wall(canvas, rng, lambda s, t: (self.x + side * s, t, self.near), depth, shade(self.colour, rng.uniform(0.72, 0.95)), plain=rng.random() < 0.5)
        self._wall(canvas, rng, lambda s, t: (self.x, t, self.near + s), self.far - self.near, shade(self.colour, rng.uniform(0.85, 1.12)), plain=False)

    def _wall(self, canvas: Canvas, rng: random.Random, at: Wall, length: float, colour: Colour, *, plain: bool) -> None:
        def patch(s: float, t: float, width: float, height: float, paint: Colour) -> None:
            canvas.polygon((at(s, t), at(s + width, t), at(s + width, t + height), at(s, t + height)), paint, BUILDING)

        patch(0, -0.3, length, self.height + 0.3, colour)
        patch(0, self.height - 0.5, length, 0.5, shade(colour, rng.choice((0.7, 1.2))))
        if plain:
            return
        ground = 3.4 if self.shop else self.storey
        bays = max(int(length / self.bay), 1)
        step = length / bays
        storeys = max(int((self.height - 0.6 - ground) / self.storey), 0)
        wide, high = self.window[0] * step, self.window[1] * self.storey
        frame = shade(colour, rng.choice((1.25, 0.7)))
        if self.shop:
            self._shop(rng, patch, length, colour)
        for storey in range(-1 if not self.shop else 0, storeys):
            base = ground + storey * self.storey if storey >= 0 else 0.2
            if storey >= 0 and rng.random() < 0.3:
                patch(0, base, length, 0.12, shade(colour, 1.15))
            for bay in range(bays):
                s, t = (bay + 0.5) * step - wide / 2, base + 0.9
                if canvas.camera.pixels(wide, at(s, t)[2]) < 2:
                    continue
                glow = rng.random() < self.lit
                pane = (236, 204, 128) if glow else vary(rng, self.glass, 16)
                patch(s - 0.1, t - 0.1, wide + 0.2, high + 0.2, frame)
                patch(s, t, wide, high, pane)
                if not glow:
                    patch(s, t + high * rng.uniform(0.35, 0.75), wide, high * 0.2, shade(pane, 1.25))
                if at(s, t)[2] < 30:
                    patch(s + wide / 2 - 0.03, t, 0.06, high, frame)
                if self.balconies and storey >= 0:
                    patch(s - 0.3, t - 0.25, wide + 0.6, 0.75, shade(colour, 0.62))
        if rng.random() < 0.6:
            patch(rng.uniform(0, length), 0, 0.14, self.height - 0.5, shade(colour, 0.6))  # drain pipe

    def _shop(self, rng: random.Random, patch: Callable[[float, float, float, float, Colour], None], length: float, colour: Colour) -> None:
        trim = vary(rng, rng.choice(((120, 40, 40), (40, 70, 110), (50, 90, 60), (180, 150, 60), (60, 60, 64))), 20)
        patch(0, 0, length, 3.3, shade(trim, 0.7))
        at = 0.3
        while at + 2.0 < length:
            width = min(rng.uniform(2.0, 4.5), length - at - 0.3)
            pane = (230, 205, 150) if rng.random() < 0.25 + self.lit else vary(rng, (74, 82, 92), 22)
            patch(at, 0.5, width - 0.3, 2.1, pane)
            patch(at, 2.65, width - 0.3, 0.5, vary(rng, trim, 40))
            if rng.random() < 0.5:
                patch(at + 0.2, 2.75, width - 0.9, 0.28, vary(rng, (215, 210, 200), 25))  # lettering
            at += width


def row(rng: random.Random, x: float, far: float, night: float, share: float) -> list[House]:
    """Houses of one side, ``share`` of the length built; distances from 1.5 metres to ``far``."""
    houses, at = [], 1.5 - rng.uniform(0, 1)
    at = max(at, 0.9)
    while at < far:
        length = rng.uniform(9, 26)
        if rng.random() < share:
            houses.append(House(rng, at, at + length, x + (1 if x > 0 else -1) * rng.choice((0, 0, 0, rng.uniform(0, 2.5))), night))
        else:
            length *= 0.6
        at += length
    return houses
