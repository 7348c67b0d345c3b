"""Segmentation data sets on disk: Cityscapes, BDD100K, DeepGlobe land cover, ISIC lesions; all give (image uint8 [H, W, 3], labels uint8 [H, W])."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from zoo_core.errors import InputError

IGNORE = 255
CITYSCAPES = [
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
]  # fmt: skip
CITYSCAPES_PALETTE = [
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35),
    (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
]  # fmt: skip
TRAIN_IDS = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
"""Label numbers of Cityscapes' annotation files -> the 19 that are trained on; all others are ignored."""
DEEPGLOBE = {
    "urban": (0, 255, 255),
    "agriculture": (255, 255, 0),
    "rangeland": (255, 0, 255),
    "forest": (0, 255, 0),
    "water": (0, 0, 255),
    "barren": (255, 255, 255),
}
"""Classes and the colours of the mask files; black is unknown and ignored."""


class FolderDataset:
    """Pairs of picture and label file, read when asked for.

    Attributes:
        classes, palette, ignore_index: Of the labels.
        pairs: (picture, label file), sorted by name.
    """

    ignore_index = IGNORE

    def __init__(
        self, pairs: list[tuple[Path, Path]], classes: list[str], palette: list[tuple[int, int, int]], convert: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        self.pairs, self.classes, self.palette, self._convert = pairs, classes, palette, convert

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """The picture's file name."""
        return self.pairs[index][0].name

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 [H, W, 3] (RGB) and labels uint8 [H, W].

        Raises:
            InputError: A file is damaged, or picture and labels differ in size.
        """
        from PIL import Image

        from zoo_core.usage import open_picture

        picture, label = self.pairs[index]
        image = np.asarray(open_picture(str(picture)), dtype=np.uint8)
        try:
            with Image.open(label) as file:
                labels = self._convert(np.asarray(file))
        except OSError as error:
            raise InputError(f"label file {str(label)!r} cannot be read: {error}", fix="restore the file") from None
        if labels.shape != image.shape[:2]:
            raise InputError(
                f"{picture.name} is {image.shape[:2]} and its labels are {labels.shape} (rows, columns)", fix="use label maps of the pictures' size"
            )
        return image, labels


def train_ids(labels: np.ndarray) -> np.ndarray:
    """Cityscapes label numbers -> training numbers.

    >>> train_ids(np.array([[7, 0, 33]], dtype=np.uint8)).tolist()
    [[0, 255, 18]]
    """
    table = np.full(256, IGNORE, dtype=np.uint8)
    for number, train in TRAIN_IDS.items():
        table[number] = train
    return table[labels]


def _as_they_are(labels: np.ndarray) -> np.ndarray:
    return labels.astype(np.uint8)


def cityscapes(folder: Path, split: str) -> FolderDataset:
    """``leftImg8bit/<split>/<city>/*_leftImg8bit.png`` with ``gtFine/.../*_gtFine_labelTrainIds.png``, or ``labelIds`` where those were never made."""
    pairs, convert = [], _as_they_are
    for picture in sorted((folder / "leftImg8bit" / split).glob("*/*_leftImg8bit.png")):
        stem = folder / "gtFine" / split / picture.parent.name / picture.name.removesuffix("_leftImg8bit.png")
        ready, raw = (stem.with_name(f"{stem.name}_gtFine_{kind}.png") for kind in ("labelTrainIds", "labelIds"))
        if not ready.exists() and raw.exists():
            convert = train_ids
            pairs.append((picture, raw))
        else:
            pairs.append((picture, ready))
    if convert is train_ids and any("TrainIds" in label.name for _, label in pairs):
        raise InputError(f"{str(folder)!r} holds training ids for some pictures and label ids for others", fix="make labelTrainIds for all or for none")
    return FolderDataset(pairs, list(CITYSCAPES), list(CITYSCAPES_PALETTE), convert)


def bdd100k(folder: Path, split: str) -> FolderDataset:
    """``images/10k/<split>/*.jpg`` with ``labels/sem_seg/masks/<split>/*.png`` (Cityscapes' training numbers)."""
    masks = folder / "labels" / "sem_seg" / "masks" / split
    pairs = [(picture, masks / f"{picture.stem}.png") for picture in sorted((folder / "images" / "10k" / split).glob("*.jpg"))]
    return FolderDataset(pairs, list(CITYSCAPES), list(CITYSCAPES_PALETTE), _as_they_are)


def deepglobe(folder: Path, split: str) -> FolderDataset:
    """``<split>/*_sat.jpg`` with ``<split>/*_mask.png`` in colours; channels count as 255 from 128 on, as the data set's page says."""
    colours = {colour: number for number, colour in enumerate(DEEPGLOBE.values())}

    def convert(mask: np.ndarray) -> np.ndarray:
        bits = (mask[..., :3] >= 128).astype(np.int64)
        table = np.full(8, IGNORE, dtype=np.uint8)
        for (red, green, blue), number in colours.items():
            table[(red > 0) * 4 + (green > 0) * 2 + (blue > 0)] = number
        return table[bits[..., 0] * 4 + bits[..., 1] * 2 + bits[..., 2]]

    pairs = [(picture, picture.with_name(picture.name.replace("_sat.jpg", "_mask.png"))) for picture in sorted((folder / split).glob("*_sat.jpg"))]
    return FolderDataset(pairs, list(DEEPGLOBE), list(DEEPGLOBE.values()), convert)


def isic(folder: Path, split: str) -> FolderDataset:
    """``<split>/images/*.jpg`` with ``<split>/masks/*_segmentation.png``, or the challenge's own folder names (task 1 of 2018); two classes."""
    names = {"train": "Training", "val": "Validation", "test": "Test"}
    own = folder / split / "images", folder / split / "masks"
    title = names.get(split, split)
    theirs = folder / f"ISIC2018_Task1-2_{title}_Input", folder / f"ISIC2018_Task1_{title}_GroundTruth"
    pictures, masks = own if own[0].is_dir() else theirs
    pairs = [(picture, masks / f"{picture.stem}_segmentation.png") for picture in sorted(pictures.glob("*.jpg"))]
    return FolderDataset(
        pairs, ["skin", "lesion"], [(240, 200, 170), (120, 40, 40)], lambda mask: (mask.reshape(*mask.shape[:2], -1)[..., 0] > 127).astype(np.uint8)
    )


READERS: dict[str, Callable[[Path, str], FolderDataset]] = {"cityscapes": cityscapes, "bdd100k": bdd100k, "deepglobe": deepglobe, "isic": isic}


def open_folder(kind: str, folder: str | os.PathLike[str], split: str = "val") -> FolderDataset:
    """A data set of the given kind.

    Raises:
        InputError: Unknown kind, no pictures where the kind keeps them, or pictures without labels.
    """
    if kind not in READERS:
        raise InputError(f"data set {kind!r} is unknown", fix=f"streets, {', '.join(READERS)}")
    root = Path(folder).expanduser()
    if not folder or not root.is_dir():
        raise InputError(f"the folder {str(folder)!r} of {kind} does not exist", fix="folder=PATH")
    data = READERS[kind](root, split)
    if not len(data):
        raise InputError(
            f"{str(root)!r} holds no pictures of {kind}, split {split!r}", tried=[" ".join((READERS[kind].__doc__ or "").split())], fix="check the folder"
        )
    absent = [label.name for _, label in data.pairs if not label.exists()]
    if absent:
        raise InputError(f"{len(absent)} of {len(data)} pictures in {str(root)!r} have no labels", tried=absent[:3], fix="fetch the label files")
    return data
