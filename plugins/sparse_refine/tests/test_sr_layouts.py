"""Files: manifests of the full-size networks, published layouts, what lies beside them, damaged and foreign files."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
import zoo_sparse_refine
from safetensors.torch import load_file, save_file
from zoo_sparse_refine import layouts
from zoo_sparse_refine.baselines import build_baseline, keymap_for
from zoo_sparse_refine.config import BaselineConfig, RefinerConfig
from zoo_sparse_refine.loading import infer_refiner
from zoo_sparse_refine.plugin import TINY
from zoo_sparse_refine.refiner import Refiner

import zoo
from zoo_core.checkpoint import DictSource, TensorSource
from zoo_core.errors import CheckpointError, ConfigError, InputError, UnsafeFileError, ZooError
from zoo_core.parity import golden_folder

DATA = Path(__file__).parent / "data"
GOLDEN = golden_folder("sparse-refine")
MANIFESTS = sorted(GOLDEN.glob("manifest-*.json")) if GOLDEN.is_dir() else []
FRAGMENT = yaml.safe_load((Path(zoo_sparse_refine.__file__).parent / "registry.yaml").read_text(encoding="utf-8"))
MODEL = "sparse-refine-hrnet-w48"
NAMES = {
    "hrnet-w48-fcn-cityscapes": "hrnet-w48",
    "segformer-b5-cityscapes": "segformer-b5",
    "segnext-l-cityscapes": "segnext-l",
    "mask2former-swin-t-cityscapes": "mask2former-t",
    "mask2former-swin-l-cityscapes": "mask2former-l",
}


class Shapes(TensorSource):
    """Keys and shapes only, as a manifest lists them."""

    def __init__(self, shapes: dict[str, list[int]]) -> None:
        self.shapes = shapes

    def keys(self) -> list[str]:
        return list(self.shapes)

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self.shapes[key])

    def dtype(self, key: str) -> torch.dtype:
        return torch.int64 if key.endswith(("num_batches_tracked", "relative_position_index")) else torch.float32


@pytest.mark.golden
@pytest.mark.skipif(not MANIFESTS, reason=f"no recorded data at {GOLDEN} (set ZOO_GOLDEN)")
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_keys_and_shapes_of_the_full_size_networks(path: Path) -> None:
    """Every key and shape of the manifest, after the key map, and no other; the parameter counts of the manifest and of the catalogue."""
    manifest = json.loads(path.read_text(encoding="utf-8"))
    refiner = RefinerConfig()
    with torch.device("meta"):
        if path.stem == "manifest-sparse-refiner-cityscapes":
            module: Any = Refiner(refiner)
            expected: Any = Shapes(manifest["keys"])
        else:
            card = FRAGMENT["models"]["sparse-refine-" + NAMES[manifest["model"]]]
            baseline = build_baseline(BaselineConfig(**card["config"]["baseline"]), refiner.num_classes)
            module, expected = baseline.network, keymap_for(baseline).apply(Shapes(manifest["keys"]))
            count = sum(p.numel() for p in module.parameters()) + sum(p.numel() for p in Refiner(refiner).parameters())
            assert card["parameters"] == count
    state = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    wanted = {key: tuple(expected.shape(key)) for key in expected}
    assert state == wanted
    assert sum(p.numel() for p in module.parameters()) == manifest["parameters"]


@pytest.fixture(scope="module")
def tiny() -> Any:
    return zoo.load(MODEL, weights="random", seed=1, device="cpu", overrides=dict(TINY))


def _same(one: Any, other: Any) -> None:
    first, second = one.network.state_dict(), other.network.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_folder_with_both_parts_comes_back(tmp_path: Path, tiny: Any) -> None:
    layouts.save(tiny, tmp_path / "saved")
    again = zoo.load(MODEL, weights=str(tmp_path / "saved"), device="cpu")
    _same(tiny, again)
    assert again.refines and again.config.refiner == tiny.config.refiner and again.classes == tiny.classes
    assert set(again.report.tensors) == {"baseline", "refiner"}
    by_path = zoo.load(str(tmp_path / "saved"), device="cpu")
    _same(tiny, by_path)


def test_what_the_user_changes_goes_before_what_lies_beside_the_weights(tmp_path: Path, tiny: Any) -> None:
    layouts.save(tiny, tmp_path / "saved")
    changed = zoo.load(MODEL, weights=str(tmp_path / "saved"), device="cpu", overrides={"refiner.threshold": 1.25, "refiner.bounds": "size"})
    assert changed.config.refiner.threshold == 1.25 and changed.config.refiner.bounds == "size"
    assert changed.config.refiner.planes == tiny.config.refiner.planes
    with pytest.raises(ZooError):  # shapes that the file does not have
        zoo.load(MODEL, weights=str(tmp_path / "saved"), device="cpu", overrides={"refiner.planes": [4, 16]})


@pytest.mark.parametrize("layout", [layouts.REFINER, layouts.LIGHTNING])
def test_refiner_checkpoints_plain_and_lightning(tmp_path: Path, tiny: Any, layout: str) -> None:
    """Exported, loaded beside a dense checkpoint, equal; sizes are read from the keys where no configuration lies beside."""
    layouts.save(tiny, tmp_path / "both")
    layouts.save_refiner(tiny.network.refiner, tmp_path / "refiner" / "last.safetensors", layout=layout)
    parts = {"baseline": str(tmp_path / "both" / "baseline.safetensors"), "refiner": str(tmp_path / "refiner" / "last.safetensors")}
    again = zoo.load(MODEL, weights=str(tmp_path / "both"), device="cpu", **parts)
    _same(tiny, again)
    source = DictSource({("model." if layout == layouts.LIGHTNING else "") + k: v for k, v in tiny.network.refiner.state_dict().items()})
    found = infer_refiner(RefinerConfig(), source)
    assert (found.planes, found.reps, found.num_classes) == ([4, 8], [1, 1], 19)


def test_lightning_ckpt_with_a_trainers_state(tmp_path: Path, tiny: Any) -> None:
    state = {"model." + key: value for key, value in tiny.network.refiner.state_dict().items()}
    file = tmp_path / "epoch=3.ckpt"
    torch.save({"epoch": 3, "global_step": 10, "state_dict": state | {"loss.weight": torch.ones(3)}, "optimizer_states": [{}], "callbacks": {}}, file)
    layouts.save(tiny, tmp_path / "both")
    again = zoo.load(MODEL, weights=str(tmp_path / "both"), device="cpu", refiner=str(file))
    _same(tiny, again)


class LogProcessor:
    def __reduce__(self) -> Any:
        return (print, ("this must not run",))


def _mmengine_like(folder: Path, harmful: bool) -> tuple[Path, Any]:
    """A dense checkpoint as mmengine writes it, with objects of its logger beside the weights."""
    case = DATA / "baseline-segnext"
    state = load_file(case / "checkpoint.safetensors")
    settings = json.loads((case / "config.json").read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    history = pytest.importorskip("mmengine.logging").HistoryBuffer
    extra: Any = {"message_hub": {"log_scalars": {"train/loss": history([1.0, 2.0], [1, 1])}}, "meta": {"epoch": 1, "seed": 3}}
    if harmful:
        extra["hook"] = LogProcessor()
    path = folder / "iter_80000.pth"
    torch.save({"state_dict": state, **extra, "optimizer": {"state": {}, "param_groups": []}}, path)
    return path, state


def test_dense_pth_of_mmengine(tmp_path: Path) -> None:
    """Loads strictly although a logger's objects lie in the pickle; they are never built.  Without a refiner the dense result is given, and said so."""
    path, state = _mmengine_like(tmp_path / "run", harmful=False)
    handle = zoo.load("sparse-refine-segnext-l", weights=str(path), device="cpu")
    own = handle.network.baseline.network.state_dict()
    assert own.keys() == state.keys() and all(torch.equal(own[key], state[key]) for key in state)
    assert not handle.refines and any("refiner" in text for text in handle.report.warnings)
    from PIL import Image

    with pytest.raises(InputError, match="without weights of the refiner"):
        handle.segment(Image.new("RGB", (64, 64)), refine=True)


def test_code_in_a_pickle_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = _mmengine_like(tmp_path / "run", harmful=True)
    with pytest.raises(UnsafeFileError, match="code to be run"):
        zoo.load("sparse-refine-segnext-l", weights=str(path), device="cpu")
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"state_dict": LogProcessor()}))
    with pytest.raises(ZooError):
        zoo.load("sparse-refine-segnext-l", weights=str(tmp_path / "old.pth"), device="cpu")
    assert "must not run" not in capsys.readouterr().out


def test_foreign_and_damaged_files(tmp_path: Path, tiny: Any) -> None:
    save_file({"encoder.weight": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="neither a dense baseline nor a sparse refiner"):
        zoo.load(MODEL, weights=str(tmp_path / "foreign.safetensors"), device="cpu")
    layouts.save(tiny, tmp_path / "cut")
    tensors = load_file(tmp_path / "cut" / "refiner.safetensors")
    tensors.pop("classifier.bias")
    save_file(tensors, tmp_path / "cut" / "refiner.safetensors")
    with pytest.raises(ZooError, match=r"classifier\.bias"):
        zoo.load(MODEL, weights=str(tmp_path / "cut"), device="cpu")
    with pytest.raises(CheckpointError, match="does not exist"):
        zoo.load(MODEL, weights=str(tmp_path / "cut"), device="cpu", refiner=str(tmp_path / "nothing.ckpt"))
    with pytest.raises(CheckpointError, match="layout"):
        layouts.save_refiner(tiny.network.refiner, tmp_path / "x.safetensors", layout="onnx")


def test_options_that_do_not_exist(tiny: Any) -> None:
    for options in ({"engine": "torchsparse"}, {"quant": "int8"}, {"dtype": "float16"}, {"overrides": {"refiner.bounds": "none"}}):
        with pytest.raises(ConfigError):
            zoo.load(MODEL, **{"weights": "random", "device": "cpu", "overrides": dict(TINY), **options})
