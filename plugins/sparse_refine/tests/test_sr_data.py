"""Readers of the four data sets on tiny folders of the right format, the generated streets behind the same interface, and the augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from zoo_sparse_refine.data.augment import Augment, Crops
from zoo_sparse_refine.data.folders import DEEPGLOBE, open_folder
from zoo_sparse_refine.data.streets import Streets

from zoo_core.errors import InputError

RNG = np.random.default_rng(0)


def picture(path: Path, size: tuple[int, int] = (6, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)


def label(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.mark.parametrize("kind", ["labelTrainIds", "labelIds"])
def test_cityscapes_reads_training_ids_and_converts_label_ids(tmp_path: Path, kind: str) -> None:
    ids = np.array([[7, 8, 11, 33], [0, 26, 24, 23]] * 3, dtype=np.uint8).repeat(2, 1)
    trained = np.array([[0, 1, 2, 18], [255, 13, 11, 10]] * 3, dtype=np.uint8).repeat(2, 1)
    for city in ("aachen", "bonn"):
        picture(tmp_path / "leftImg8bit" / "val" / city / f"{city}_0_leftImg8bit.png")
        label(tmp_path / "gtFine" / "val" / city / f"{city}_0_gtFine_{kind}.png", trained if kind == "labelTrainIds" else ids)
    data = open_folder("cityscapes", tmp_path)
    image, labels = data[1]
    assert len(data) == 2 and len(data.classes) == len(data.palette) == 19 and image.shape == (6, 8, 3)
    assert np.array_equal(labels, trained) and data.ignore_index == 255


def test_bdd100k(tmp_path: Path) -> None:
    values = np.full((6, 8), 255, dtype=np.uint8)
    values[:, :4] = 13
    picture(tmp_path / "images" / "10k" / "train" / "a.jpg")
    label(tmp_path / "labels" / "sem_seg" / "masks" / "train" / "a.png", values)
    assert np.array_equal(open_folder("bdd100k", tmp_path, "train")[0][1], values)


def test_deepglobe_colours_become_classes_and_black_is_ignored(tmp_path: Path) -> None:
    colours = [*DEEPGLOBE.values(), (0, 0, 0), (3, 250, 247)]  # the last is a compressed cyan
    picture(tmp_path / "train" / "7_sat.jpg", (1, 8))
    label(tmp_path / "train" / "7_mask.png", np.array([colours], dtype=np.uint8))
    assert open_folder("deepglobe", tmp_path, "train")[0][1].tolist() == [[0, 1, 2, 3, 4, 5, 255, 0]]


@pytest.mark.parametrize("challenge", [False, True])
def test_isic_masks_are_two_classes(tmp_path: Path, challenge: bool) -> None:
    pictures = tmp_path / ("ISIC2018_Task1-2_Validation_Input" if challenge else "val/images")
    masks = tmp_path / ("ISIC2018_Task1_Validation_GroundTruth" if challenge else "val/masks")
    picture(pictures / "ISIC_1.jpg")
    label(masks / "ISIC_1_segmentation.png", np.where(np.arange(48).reshape(6, 8) % 2, 255, 0).astype(np.uint8))
    data = open_folder("isic", tmp_path)
    assert set(np.unique(data[0][1])) == {0, 1} and data.classes == ["skin", "lesion"]


def test_bad_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown"):
        open_folder("ade20k", tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        open_folder("isic", tmp_path / "absent")
    with pytest.raises(InputError, match="holds no pictures"):
        open_folder("bdd100k", tmp_path)
    picture(tmp_path / "images" / "10k" / "val" / "a.jpg")
    with pytest.raises(InputError, match="no labels"):
        open_folder("bdd100k", tmp_path)
    label(tmp_path / "labels" / "sem_seg" / "masks" / "val" / "a.png", np.zeros((3, 3), dtype=np.uint8))
    with pytest.raises(InputError, match="rows, columns"):
        open_folder("bdd100k", tmp_path)[0]


def test_streets_are_seeded_and_cached(tmp_path: Path) -> None:
    first = Streets(3, 2, height=96, width=192, folder=tmp_path)
    image, labels = first[1]
    again, labels_again = Streets(3, 2, height=96, width=192)[1]
    assert np.array_equal(image, again) and np.array_equal(labels, labels_again)
    assert len(list(tmp_path.rglob("*.npy"))) == 1 and np.array_equal(Streets(3, 2, height=96, width=192, folder=tmp_path)[1][0], image)
    assert not np.array_equal(Streets(4, 2, height=96, width=192)[1][0], image)


def test_streets_hold_thin_things_that_low_resolution_loses() -> None:
    """Of every thin class something is there at 1024 x 2048, and a good part of it is gone when every fourth pixel is kept."""
    from zoo_sparse_refine.streets import THIN

    pixels = dict.fromkeys(THIN, 0)
    for index in range(3):
        labels = Streets(1, 3)[index][1]
        for number in THIN:
            pixels[number] += int((labels == number).sum())
        assert len(np.unique(labels)) >= 8 and labels.shape == (1024, 2048)
    assert all(pixels.values()), pixels


def test_augmentation_moves_pixels_and_labels_together_and_is_seeded() -> None:
    rows, columns = np.mgrid[:64, :96]
    image = np.stack((rows, columns, rows * 0), 2).astype(np.uint8)  # a picture that says where each pixel came from
    labels = (rows // 8 + columns // 8).astype(np.uint8)
    augment = Augment(32, 48, 1.0, 1.0, distort=0.0)
    for seed in range(6):
        pixels, truth = augment(image, labels, torch.Generator().manual_seed(seed))
        assert pixels.shape == (3, 32, 48)
        assert torch.equal(truth, (pixels[0] // 8 + pixels[1] // 8).long())
        assert all(torch.equal(a, b) for a, b in zip((pixels, truth), augment(image, labels, torch.Generator().manual_seed(seed)), strict=True))
    wide = Augment(64, 96, 0.5, 0.5)(image, labels, torch.Generator().manual_seed(0))
    assert (wide[1] == 255).sum() == 64 * 96 - 32 * 48, "beyond the picture's edge labels are ignored"
    batch = Crops([(image, labels)] * 2, Augment(16, 16, 0.8, 1.2), shrink=2)({"index": torch.arange(2)}, torch.Generator().manual_seed(0))
    assert batch["pixels"].shape == (2, 3, 16, 16) and batch["labels"].shape == (2, 16, 16)
