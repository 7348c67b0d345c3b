"""Contracts of semantic segmentation and motion prediction."""

from __future__ import annotations

from typing import Any

from zoo_core.testing.checks import check
from zoo_core.testing.checks.images import NEEDS, of_task, refuses
from zoo_core.testing.results import Skipped
from zoo_core.testing.subject import Subject

SEGMENTERS = of_task("semantic-segmentation")
PREDICTORS = of_task("motion-prediction")


@check("segmenter.result", items=SEGMENTERS, needs=NEEDS)
def result(subject: Subject, item: str) -> None:
    """``segment`` returns one label map per picture, of the picture's size, with class indices (255 for none); the palette fits the classes."""
    import numpy as np
    from PIL import Image

    from zoo_core.interfaces import SegmentationResult

    handle, call = subject.handle(item), subject.call(item)
    assert len(handle.palette) == len(handle.classes) > 0, f"{item}: {len(handle.classes)} classes, {len(handle.palette)} colours"
    given = [_picture(96, 64), _picture(64, 96).convert("L"), _picture(64, 64).convert("RGBA")]
    made = handle.segment(given, **call)
    assert isinstance(made, SegmentationResult) and len(made.labels) == 3, f"{item}: segment returns {type(made).__name__} for three pictures"
    for picture, labels in zip(given, made.labels, strict=True):
        assert isinstance(labels, np.ndarray) and labels.dtype in (np.uint8, np.int64), (
            f"{item}: labels are {type(labels).__name__} {getattr(labels, 'dtype', '')}"
        )
        assert labels.shape == (picture.height, picture.width), f"{item}: a picture {picture.size} (width, height) has labels {labels.shape}"
        bad = set(np.unique(labels)) - set(range(len(handle.classes))) - {255}
        assert not bad, f"{item}: labels {sorted(bad)[:5]} are no classes"
    assert isinstance(handle.segment(Image.new("RGB", (64, 64)), **call), SegmentationResult), f"{item}: a single picture is not taken"


@check("segmenter.batch", items=SEGMENTERS, needs=(*NEEDS, "segmenter.result"))
def batch(subject: Subject, item: str) -> None:
    """Pictures in a batch get the labels they get alone (up to one pixel in a hundred, ties)."""
    handle, call = subject.handle(item), subject.call(item)
    pictures = [_picture(64, 64), _picture(64, 64).rotate(90)]
    together = handle.segment(pictures, **call).labels
    for picture, labels in zip(pictures, together, strict=True):
        share = float((handle.segment(picture, **call).labels[0] != labels).mean())
        assert share <= 0.01, f"{item}: {100 * share:.1f} % of the labels differ between a batch and a single picture"


@check("segmenter.inputs", items=SEGMENTERS, needs=(*NEEDS, "segmenter.result"))
def inputs(subject: Subject, item: str) -> None:
    """Missing files, empty lists, other types and unknown options are refused."""
    handle, call = subject.handle(item), subject.call(item)
    refuses(f"{item}: a file that does not exist", lambda: handle.segment("no-such-picture.png", **call))
    refuses(f"{item}: segment([])", lambda: handle.segment([], **call))
    refuses(f"{item}: segment(3)", lambda: handle.segment(3, **call))
    refuses(f"{item}: segment(no_such_option=1)", lambda: handle.segment(_picture(64, 64), no_such_option=1, **call))


@check("motion.generic", items=PREDICTORS, needs=NEEDS)
def motion(subject: Subject, item: str) -> None:
    """Motion prediction: scenes differ between plugins, so the kit has no input of its own."""
    raise Skipped("the kit has no scene of its own; test predict() in the plugin")


def _picture(width: int, height: int) -> Any:
    import numpy as np
    from PIL import Image

    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([(x * 5) % 256, (y * 7) % 256, ((x + y) * 3) % 256], -1).astype(np.uint8))
