"""The twelve classes of the generated streets."""

from __future__ import annotations

IGNORE = 255
"""Label of pixels that count neither in training nor in evaluation (the bonnet of the camera's own car)."""

CLASSES = ("road", "sidewalk", "building", "sky", "vegetation", "car", "person", "pole", "traffic sign", "lane mark", "wire", "railing")
ROAD, SIDEWALK, BUILDING, SKY, VEGETATION, CAR, PERSON, POLE, SIGN, MARK, WIRE, RAILING = range(12)

THIN = (PERSON, POLE, SIGN, MARK, WIRE, RAILING)
"""Classes that are mostly a few pixels wide: what a low resolution loses."""

PALETTE = (
    (128, 64, 128),
    (244, 35, 232),
    (70, 70, 70),
    (70, 130, 180),
    (107, 142, 35),
    (0, 0, 142),
    (220, 20, 60),
    (153, 153, 153),
    (220, 220, 0),
    (255, 255, 255),
    (255, 140, 0),
    (190, 153, 153),
)
"""RGB of every class, Cityscapes' colours where it has the class."""
