"""One street scene from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from zoo_sparse_refine.streets import buildings, finish, ground, thin, things
from zoo_sparse_refine.streets.canvas import Camera, Canvas, Colour, Solid, mix, vary

Thing = tuple[float, Callable[[], None]]
"""Distance in metres, and what draws it."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture and its labels.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        labels: uint8 [H, W], index into :data:`~zoo_sparse_refine.streets.CLASSES`, 255 = ignore.
        seed: What it was made from.
    """

    image: np.ndarray
    labels: np.ndarray
    seed: str


def make_scene(seed: int | str = 0, index: int = 0, *, height: int = 1024, width: int = 2048) -> Scene:
    """Draw a street as a camera in a car sees it.

    The same arguments give the same bytes.  Distances and sizes are in metres, so a smaller picture shows the same street with less detail (its texture and
    its noise differ: they belong to pixels).

    Args:
        seed, index: Which scene; scenes of one seed and different indices are independent.
        height, width: Pixels; at least 32 each, any shape.

    Raises:
        ConfigError: The size is too small.

    >>> scene = make_scene(0, height=64, width=128)
    >>> scene.image.shape, scene.labels.shape
    ((64, 128, 3), (64, 128))
    """
    if height < 32 or width < 32:
        from zoo_core.errors import ConfigError

        raise ConfigError(f"a street of {height}x{width} pixels has no room for anything", fix="height and width of at least 32")
    name = f"{seed}/{index}"
    rng = random.Random(name)
    night = rng.choice((0.0, 0.0, 0.0, rng.uniform(0, 1)))
    top, bottom = _sky_colours(rng, night)
    camera = Camera(
        focal=max(width, 2 * height) * rng.uniform(0.55, 0.95),
        centre=(width * rng.uniform(0.4, 0.6), height * rng.uniform(0.38, 0.5)),
        height=rng.uniform(1.2, 2.2),
    )
    canvas = Canvas(width, height, camera, haze=bottom, visibility=rng.choice((900.0, 500.0, rng.uniform(120, 400))))
    plan = ground.make_plan(rng)
    ground.sky(canvas, rng, top, bottom)
    ground.skyline(canvas, rng)
    ground.ground(canvas, rng, plan)
    behind, front, casts = _furnish(rng, canvas, plan, night)
    ground.shadows(canvas, rng, casts, plan, rng.choice((0.0, rng.uniform(0.1, 0.5))) * (1 - night))
    for group in (behind, front):
        for _, draw in sorted(group, key=lambda thing: -thing[0]):
            draw()
    image, labels = finish.finish(canvas, rng, night)
    return Scene(image, labels, name)


def _sky_colours(rng: random.Random, night: float) -> tuple[Colour, Colour]:
    clear: tuple[Colour, Colour] = ((86, 136, 196), (196, 214, 228))
    dull: tuple[Colour, Colour] = ((176, 182, 188), (212, 214, 214))
    dusk: tuple[Colour, Colour] = ((54, 62, 96), (206, 150, 118))
    share = rng.random()
    top, bottom = mix(clear[0], dull[0], share), mix(clear[1], dull[1], share)
    return vary(rng, mix(top, dusk[0], night), 8), vary(rng, mix(bottom, dusk[1], night), 8)


def _furnish(rng: random.Random, canvas: Canvas, plan: ground.Plan, night: float) -> tuple[list[Thing], list[Thing], list[list[Solid]]]:
    """Everything that stands in the street: what is at or behind the houses' fronts, what stands before them, and shadows."""
    behind: list[Thing] = []
    front: list[Thing] = []
    casts: list[list[Solid]] = []

    def fork() -> random.Random:
        return random.Random(rng.random())

    sides = [(-1, plan.left, plan.walk_left), (1, plan.right, plan.walk_right)]
    far = rng.uniform(90, 200)
    for side, edge, walk in sides:
        wall = edge + side * (walk + plan.verge)
        for house in buildings.row(rng, wall, far, night, share=rng.uniform(0.55, 1.0)):
            behind.append((house.near + 0.01, lambda house=house: house.draw(canvas)))
        for _ in range(rng.randrange(0, 9)):
            x, z = wall + side * rng.uniform(1.5, 9), rng.uniform(12, 130)
            behind.append((z, lambda x=x, z=z, own=fork(): things.tree(canvas, own, x, z)))
        if plan.verge and rng.random() < 0.6:
            near = rng.uniform(4, 30)
            behind.append((0.5, lambda x=wall - side * 0.8, near=near, own=fork(): things.hedge(canvas, own, x, near, near + 12)))
        _edge_of_road(rng, fork, canvas, plan, side, edge, walk, front, casts)
        for _ in range(rng.randrange(2, 12)):  # people on the sidewalk, many of them far away
            x, z = edge + side * rng.uniform(0.4, walk), 5 + 75 * rng.random() ** 0.8
            front.append((z, lambda x=x, z=z, own=fork(): things.person(canvas, own, x, z)))
            casts.append(things.person_shadow(x, z))
    _traffic(rng, fork, canvas, plan, front, casts)
    _wires(rng, fork, canvas, plan, front)
    return behind, front, casts


def _edge_of_road(rng, fork, canvas, plan, side, edge, walk, front, casts) -> None:  # type: ignore[no-untyped-def]
    """Trees, lamps, signs, bollards, railings and parked cars along one edge."""
    line = edge + side * 0.5
    if rng.random() < 0.55:
        z, gap = rng.uniform(6, 14), rng.uniform(7, 16)
        while z < 120:
            if rng.random() < 0.85:
                front.append((z, lambda z=z, own=fork(): things.tree(canvas, own, line + side * 0.3, z)))
                casts.append(things.tree_shadow(rng, line, z))
            z += gap
    z, gap = rng.uniform(6, 25), rng.uniform(18, 32)
    while z < 150:
        front.append((z, lambda z=z, own=fork(): thin.lamp(canvas, own, line, z, -side * own.uniform(0.8, 2.2))))
        z += gap
    for _ in range(rng.randrange(1, 6)):
        z = rng.uniform(6, 70)
        front.append((z, lambda z=z, own=fork(): thin.sign(canvas, own, line + side * own.uniform(-0.1, 0.4), z)))
    if rng.random() < 0.5:
        z = rng.uniform(10, 60)
        front.append((z, lambda z=z, own=fork(): thin.guide(canvas, own, line, z, side)))
    if rng.random() < 0.45:
        style, colour = rng.randrange(3), vary(rng, rng.choice(((70, 74, 76), (196, 198, 198), (56, 84, 70), (150, 60, 50))), 10)
        z, panel, x = rng.uniform(4, 12), rng.uniform(1.6, 2.4), edge + side * rng.uniform(0.25, 0.5)
        while z < 45:
            front.append((z + panel / 2, lambda z=z, x=x: thin.railing(canvas, rng, style, colour, x, z, z + panel)))
            z += panel
    elif rng.random() < 0.3:
        near = rng.uniform(5, 20)
        front.append((near + 5, lambda: thin.bollards(canvas, fork(), line, near, near + 14)))
    if rng.random() < 0.6:
        z = rng.uniform(4, 30)
        while z < 90:
            if rng.random() < 0.7:
                x = edge - side * rng.uniform(1.0, 1.2)
                front.append((z + 0.1, lambda x=x, z=z, own=fork(): things.car(canvas, own, x, z, oncoming=side < 0)))
                casts.append(things.car_shadow(x, z))
            z += rng.uniform(5.2, 8)


def _traffic(rng, fork, canvas, plan, front, casts) -> None:  # type: ignore[no-untyped-def]
    for lane in range(plan.lanes):
        x, z = plan.left + (lane + 0.5) * plan.lane, rng.uniform(9, 45)
        while z < 130:
            if rng.random() < 0.55:
                at = x + rng.uniform(-0.3, 0.3)
                front.append((z, lambda at=at, z=z, own=fork(): things.car(canvas, own, at, z, oncoming=at < -1)))
                casts.append(things.car_shadow(at, z))
            z += rng.uniform(8, 30)
    for _ in range(rng.choice((0, 0, 1, 3))):  # crossing the road
        x, z = rng.uniform(plan.left, plan.right), rng.uniform(8, 50)
        front.append((z, lambda x=x, z=z, own=fork(): things.person(canvas, own, x, z)))
        casts.append(things.person_shadow(x, z))


def _wires(rng, fork, canvas, plan, front) -> None:  # type: ignore[no-untyped-def]
    """Masts with wires along the street, and wires across it."""
    dark = vary(rng, (34, 34, 38), 8)
    if rng.random() < 0.7:
        side = rng.choice((-1, 1))
        x = plan.left - 0.9 if side < 0 else plan.right + 0.9
        z, gap, tall = rng.uniform(3, 10), rng.uniform(18, 32), rng.uniform(6.5, 9)
        offsets = [rng.uniform(-0.9, 0.9) for _ in range(rng.randrange(2, 7))]
        thickness = rng.uniform(0.025, 0.05)
        while z < 130:
            front.append((z, lambda z=z, own=fork(): thin.mast(canvas, own, x, z, tall)))
            for i, offset in enumerate(offsets):
                a, b = (x + offset, tall - 0.3 - 0.8 * (i % 2), z), (x + offset, tall - 0.3 - 0.8 * (i % 2), z + gap)
                front.append((z + gap / 2, lambda a=a, b=b, i=i: thin.wire(canvas, a, b, 0.35 + 0.05 * i, thickness, dark)))
            if rng.random() < 0.6:  # to the house opposite
                other = (plan.right + plan.walk_right) if side < 0 else (plan.left - plan.walk_left)
                end = (other, rng.uniform(4.5, 7.5), z + rng.uniform(-5, 8) if z > 8 else z + 5)
                front.append((z, lambda z=z, end=end: thin.wire(canvas, (x, tall - 0.4, z), end, 0.5, thickness, dark)))
            z += gap
    if rng.random() < 0.4:  # tram: contact wires along, suspension across
        level, z, gap = rng.uniform(5, 6), rng.uniform(6, 14), rng.uniform(12, 22)
        tracks = [plan.left + plan.lane * (i + 0.5) for i in range(min(plan.lanes, 2))]
        while z < 100:
            ends = (plan.left - plan.walk_left, level + 0.8, z), (plan.right + plan.walk_right, level + 0.8, z)
            front.append((z, lambda ends=ends: thin.wire(canvas, *ends, 0.7, 0.03, dark)))
            for track in tracks:
                front.append((z + gap / 2, lambda t=track, z=z: thin.wire(canvas, (t, level, z), (t, level, z + gap), 0.05, 0.035, dark)))
            z += gap
