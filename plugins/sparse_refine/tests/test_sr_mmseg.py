"""mmsegmentation's own test runner, ``init_model`` and ``inference_model`` on the refined model, and its models as our baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from zoo_sparse_refine.plugin import TINY

import zoo
from zoo_core.errors import InputError

pytest.importorskip("mmseg")

MODEL = "sparse-refine-hrnet-w48"
OPTIONS = {"overrides": dict(TINY)}
SHARE = 0.25
REFINED = {"load_options": {"seed": 3}, "options": {"top_k": SHARE}}
SEGFORMER = {
    "type": "EncoderDecoder",
    "backbone": {
        "type": "MixVisionTransformer",
        "embed_dims": 8,
        "num_layers": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "patch_sizes": [7, 3, 3, 3],
        "sr_ratios": [8, 4, 2, 1],
        "out_indices": (0, 1, 2, 3),
        "mlp_ratio": 2,
    },
    "decode_head": {
        "type": "SegformerHead",
        "in_channels": [8, 8, 16, 16],
        "in_index": [0, 1, 2, 3],
        "channels": 16,
        "num_classes": 5,
        "norm_cfg": {"type": "BN"},
        "align_corners": False,
    },
    "test_cfg": {"mode": "whole"},
}


@pytest.fixture(scope="module")
def handle() -> Any:
    return zoo.load(MODEL, weights="random", seed=3, device="cpu", **OPTIONS)


def _city(folder: Path, classes: int, count: int = 2) -> None:
    """Pictures and label maps in the folders of Cityscapes."""
    generator = np.random.default_rng(0)
    for part, suffix in (("leftImg8bit", "_leftImg8bit.png"), ("gtFine", "_gtFine_labelTrainIds.png")):
        (folder / part / "val" / "town").mkdir(parents=True)
        for number in range(count):
            shape = (64, 96, 3) if part == "leftImg8bit" else (64, 96)
            array = generator.integers(0, 256 if part == "leftImg8bit" else classes, shape, dtype=np.uint8)
            if part == "gtFine":
                array[:5] = 255
            Image.fromarray(array).save(folder / part / "val" / "town" / f"town_00000{number}_000019{suffix}")


def _config(folder: Path, **model: Any) -> Any:
    from mmengine.config import Config

    pipeline = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]
    data = {"img_path": "leftImg8bit/val", "seg_map_path": "gtFine/val"}
    return Config(
        {
            "default_scope": "mmseg",
            "custom_imports": {"imports": ["zoo_sparse_refine.mmseg_segmentor"]},
            "model": {"type": "SparseRefineSegmentor", "name": MODEL, "weights": "random", **REFINED, **OPTIONS, **model},
            "test_pipeline": pipeline,
            "test_dataloader": {
                "batch_size": 1,
                "num_workers": 0,
                "sampler": {"type": "DefaultSampler", "shuffle": False},
                "dataset": {"type": "CityscapesDataset", "data_root": str(folder), "data_prefix": data, "pipeline": pipeline},
            },
            "test_evaluator": {"type": "IoUMetric", "iou_metrics": ["mIoU"]},
            "test_cfg": {"type": "TestLoop"},
            "work_dir": str(folder / "work"),
            "log_level": "ERROR",
        }
    )


def test_the_test_runner_of_mmsegmentation_evaluates_the_refined_model(tmp_path: Path, handle: Any) -> None:
    """Its mIoU and pixel accuracy are ours, of the class maps that ``segment`` gives."""
    import torch
    import zoo_sparse_refine.mmseg_segmentor  # noqa: F401 - what custom_imports does when a configuration is read from a file
    from mmengine.runner import Runner
    from zoo_sparse_refine.metrics import confusion, mean_iou, pixel_accuracy

    classes = len(handle.classes)
    _city(tmp_path, classes)
    found = Runner.from_cfg(_config(tmp_path)).test()
    table = torch.zeros(classes, classes, dtype=torch.int64)
    for picture in sorted((tmp_path / "leftImg8bit").rglob("*.png")):
        truth = np.asarray(Image.open(str(picture).replace("leftImg8bit/", "gtFine/").replace("_leftImg8bit", "_gtFine_labelTrainIds")))
        result = handle.segment(str(picture), top_k=SHARE)
        assert result.info["refined_share"][0] == SHARE
        table += confusion(torch.from_numpy(result.labels[0]), torch.from_numpy(truth.copy()), classes)
    assert found["mIoU"] == pytest.approx(100 * mean_iou(table), abs=0.006)  # it rounds to two decimals
    assert found["aAcc"] == pytest.approx(100 * pixel_accuracy(table), abs=0.006)


def test_init_model_and_inference_model(tmp_path: Path, handle: Any) -> None:
    """A configuration file on disk; picture as BGR array, as OpenCV gives it; logits agree with the class map; run-time options count."""
    from mmseg.apis import inference_model, init_model

    _city(tmp_path, len(handle.classes), count=1)
    picture = next((tmp_path / "leftImg8bit").rglob("*.png"))
    file = tmp_path / "refined.py"
    file.write_text(_config(tmp_path, seg_logits=True).pretty_text, encoding="utf-8")
    model = init_model(str(file), device="cpu")
    assert model.dataset_meta["classes"] == tuple(handle.classes)
    bgr = np.asarray(Image.open(picture).convert("RGB"))[..., ::-1].copy()
    sample = inference_model(model, bgr)
    labels = sample.pred_sem_seg.data[0].numpy()
    assert (labels == handle.segment(str(picture), top_k=SHARE).labels[0]).all()
    assert (labels != handle.segment(str(picture), refine=False).labels[0]).any()
    assert sample.seg_logits.data.shape == (len(handle.classes), 64, 96)
    assert (sample.seg_logits.data.argmax(0).numpy() == labels).all()
    model.options = {"threshold": 100.0}
    none = inference_model(model, bgr)
    assert none.refined_share == 0
    assert (none.pred_sem_seg.data[0].numpy() == handle.segment(str(picture), refine=False).labels[0]).all()


def test_flips_and_sizes_of_the_pipeline_are_undone(handle: Any) -> None:
    import torch
    from mmseg.structures import SegDataSample
    from zoo_sparse_refine.mmseg_segmentor import SparseRefineSegmentor

    model = SparseRefineSegmentor(handle)
    pixels = torch.randint(0, 256, (1, 3, 64, 96), generator=torch.Generator().manual_seed(1)).float()
    straight = model.predict(pixels)[0].pred_sem_seg.data
    for direction, axis in (("horizontal", 2), ("vertical", 1)):
        sample = SegDataSample(metainfo={"flip": True, "flip_direction": direction, "ori_shape": (64, 96)})
        assert (model.predict(pixels, [sample])[0].pred_sem_seg.data == straight.flip(axis)).all()
    sample = SegDataSample(metainfo={"ori_shape": (128, 192)})
    assert (model.predict(pixels, [sample])[0].pred_sem_seg.data == straight.repeat_interleave(2, 1).repeat_interleave(2, 2)).all()
    assert torch.equal(model(pixels, mode="tensor").argmax(1), straight)
    assert model.extract_feat(pixels).shape[:2] == (1, len(handle.classes))


def test_what_does_not_fit_is_refused(handle: Any) -> None:
    from zoo_sparse_refine.mmseg_segmentor import SparseRefineSegmentor

    with pytest.raises(InputError, match=r"data_preprocessor\.mean"):
        SparseRefineSegmentor(handle, data_preprocessor={"mean": [1.0, 2.0, 3.0], "std": [1.0, 1.0, 1.0]})
    with pytest.raises(InputError, match="'treshold'"):
        SparseRefineSegmentor(handle, options={"treshold": 0.1})
    with pytest.raises(InputError, match="inference"):
        SparseRefineSegmentor(handle).loss(None, None)  # type: ignore[arg-type]


def test_any_configuration_of_mmsegmentation_is_a_baseline(tmp_path: Path) -> None:
    """A configuration file of one's own (here: a tiny SegFormer) with a checkpoint of mmengine's form beside it."""
    import torch
    from zoo_sparse_refine.baselines.mmseg_models import import_mmseg

    import_mmseg()
    from mmseg.registry import MODELS

    file = tmp_path / "mine.py"
    file.write_text(f"model = {SEGFORMER!r}\n", encoding="utf-8")
    torch.manual_seed(0)
    network = MODELS.build(SEGFORMER).eval()
    checkpoint = tmp_path / "epoch_1.pth"
    torch.save({"state_dict": network.state_dict(), "meta": {"epoch": 1}, "optimizer": {"state": {}}}, checkpoint)
    classes = SEGFORMER["decode_head"]["num_classes"]  # type: ignore[index]
    overrides = {"baseline.model": {"file": str(file)}, "baseline.height": 64, "baseline.width": 96, "height": 64, "width": 96, "refiner.num_classes": classes}
    overrides |= {"classes": [f"c{i}" for i in range(classes)], "palette": [[i, i, i] for i in range(classes)]}
    handle = zoo.load(MODEL, weights=str(checkpoint), device="cpu", overrides=overrides)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8))
    result = handle.segment(picture, scores=True)
    from zoo_sparse_refine.pipeline import normalise

    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        expected = network.encode_decode(normalise(pixels), [{"img_shape": (64, 96), "ori_shape": (64, 96)}])
    assert result.scores is not None
    assert np.abs(result.scores[0] - expected[0].numpy()).max() < 1e-4
    assert not handle.refines
