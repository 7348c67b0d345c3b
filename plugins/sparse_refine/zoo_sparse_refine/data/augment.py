"""Random crops of a picture and its labels: scale, place, mirror, colours (fact sheet section 3), drawn from one seeded generator."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augment:
    """How samples are drawn.

    Attributes:
        height, width: Of the crop, in pixels of the (scaled) picture.
        low, high: Range of the random scale of the picture; 1 leaves it as it is.
        category_ratio: A crop in which one class has more than this share of the pixels is drawn again, at most ``tries`` times.
        flip: Probability of a mirrored crop.
        distort: Strength of the random brightness, contrast, saturation and tint; 0: none.
        ignore: Label of pixels beyond the picture's edge.
    """

    height: int = 512
    width: int = 1024
    low: float = 0.5
    high: float = 2.0
    category_ratio: float = 0.75
    tries: int = 10
    flip: float = 0.5
    distort: float = 1.0
    ignore: int = 255

    def __call__(self, image: np.ndarray, labels: np.ndarray, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """uint8 [H, W, 3] and [H, W] -> float [3, height, width] in 0..255 and int64 [height, width]; labels are taken from the nearest pixel."""

        def uniform(low: float, high: float) -> float:
            return low + (high - low) * float(torch.rand((), generator=generator))

        scale = uniform(self.low, self.high)
        rows, columns = min(image.shape[0], round(self.height / scale)), min(image.shape[1], round(self.width / scale))
        for _ in range(self.tries):
            top = round(uniform(0, image.shape[0] - rows))
            left = round(uniform(0, image.shape[1] - columns))
            part = labels[top : top + rows, left : left + columns]
            counts = np.bincount(part[::4, ::4].reshape(-1), minlength=256)
            counts[self.ignore] = 0
            if np.count_nonzero(counts) > 1 and counts.max() < self.category_ratio * counts.sum():
                break
        pixels = torch.from_numpy(np.array(image[top : top + rows, left : left + columns])).permute(2, 0, 1)
        truth = torch.from_numpy(np.array(part))
        size = (min(self.height, round(rows * scale)), min(self.width, round(columns * scale)))
        if size != (rows, columns):  # bytes stay bytes: four times less to move
            pixels = F.interpolate(pixels[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]
            truth = F.interpolate(truth[None, None], size=size, mode="nearest-exact")[0, 0]
        pixels, truth = pixels.float(), truth.long()
        pixels = self._colours(pixels, uniform) if self.distort else pixels
        edge = (0, self.width - size[1], 0, self.height - size[0])
        if any(edge):
            pixels, truth = F.pad(pixels, edge), F.pad(truth, edge, value=self.ignore)
        if uniform(0, 1) < self.flip:
            pixels, truth = pixels.flip(2), truth.flip(1)
        return pixels, truth

    def _colours(self, pixels: Tensor, uniform: object) -> Tensor:
        draw = uniform  # brightness, contrast, saturation and a tint, each by half of the time
        assert callable(draw)
        if draw(0, 1) < 0.5:
            pixels = pixels + draw(-32, 32) * self.distort
        if draw(0, 1) < 0.5:
            pixels = (pixels - 128) * (1 + draw(-0.4, 0.4) * self.distort) + 128
        if draw(0, 1) < 0.5:
            grey = pixels.mean(0, keepdim=True)
            pixels = grey + (pixels - grey) * (1 + draw(-0.5, 0.5) * self.distort)
        if draw(0, 1) < 0.5:
            pixels = pixels + torch.tensor([[[draw(-10, 10)]], [[draw(-10, 10)]], [[draw(-10, 10)]]]) * self.distort
        return pixels.clamp(0, 255)


class Crops:
    """Batch transform: indices -> pixels float [B, 3, h, w] and labels int64 [B, h, w] of a data set of (image, labels).

    Args:
        scenes: ``scenes[i] -> (uint8 [H, W, 3], uint8 [H, W])``.
        augment: How a sample is drawn.
        shrink: Make the picture smaller first by this factor (training the dense model for a low resolution): the crop has the size of ``augment``.
    """

    def __init__(self, scenes: object, augment: Augment, shrink: int = 1) -> None:
        self.scenes, self.augment, self.shrink = scenes, augment, shrink

    def __call__(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        augment, shrink = self.augment, self.shrink
        if shrink > 1:
            augment = replace(augment, low=augment.low / shrink, high=augment.high / shrink)
        crops = [augment(*self.scenes[index], generator) for index in batch["index"].tolist()]  # type: ignore[index]
        return {"pixels": torch.stack([pixels for pixels, _ in crops]), "labels": torch.stack([labels for _, labels in crops])}
