"""Files: dense checkpoints of mmsegmentation, refiner checkpoints (plain or Lightning), and the folder that holds both."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core.checkpoint import Drop, KeyMap, Rename, TensorSource, open_checkpoint, save_checkpoint
from zoo_core.errors import CheckpointError

if TYPE_CHECKING:
    from zoo_sparse_refine.model import SparseRefine
    from zoo_sparse_refine.refiner import Refiner

DENSE, REFINER, LIGHTNING, TRANSFORMERS = "mmseg-dense", "sparse-refiner", "sparse-refiner-lightning", "transformers-dense"
FORMAT = "zoo-sparse-refine"
BASELINE_FILE, REFINER_FILE = "baseline.safetensors", "refiner.safetensors"
INERT = re.compile(
    r"(mmengine\.[\w.]+|(builtins|__builtin__)\.getattr|numpy(\._core|\.core)?\.multiarray\.(_reconstruct|scalar)|numpy\.(ndarray|dtype|mean|min|max)"
    r"|numpy\.dtypes\.\w+|_codecs\.encode)\Z"
)
"""Names in training checkpoints of mmengine (message hub, logged scalars) that are replaced by an object that does nothing."""


def layout_of(keys: Iterable[str]) -> str:
    """Which layout the keys have.

    Raises:
        CheckpointError: None.
    """
    found = list(keys)
    names = set(found)
    if "backbone.net.0.kernel" in names:
        return REFINER
    if "model.backbone.net.0.kernel" in names:
        return LIGHTNING
    if any(key.startswith("decode_head.") for key in found) and any(key.startswith("backbone.") for key in found):
        return DENSE
    if any(key.startswith(("segformer.", "decode_head.linear_c")) for key in found):
        return TRANSFORMERS
    shown = ", ".join(sorted(found)[:4])
    raise CheckpointError(
        f"these {len(found)} tensors are neither a dense baseline nor a sparse refiner", tried=[f"first keys: {shown}"], fix="zoo load-check PATH"
    )


def refiner_keymap(config: Any = None) -> KeyMap:
    """Keys of the reference (plain) -> keys of :class:`~zoo_sparse_refine.refiner.Refiner` (the same)."""
    return KeyMap([])


def lightning_keymap(config: Any = None) -> KeyMap:
    """Keys of a training checkpoint: the prefix ``model.`` goes, everything else of the trainer too."""
    return KeyMap([Rename("model.{x*}", "{x*}"), Drop("loss{x*}", "loss modules of the trainer")])


class _Inert:
    """Stands for an object of a logger in a training checkpoint: takes any state and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


@contextmanager
def training_checkpoints_allowed(path: Path) -> Iterator[None]:
    """Let the weights-only unpickler pass over the logger's objects in ``.pth`` files of mmengine; anything else stays refused.  No class is imported."""
    import torch

    names: list[str] = []
    if path.is_file() and path.suffix in (".pth", ".pt", ".ckpt", ".bin"):
        try:
            names = [name for name in torch.serialization.get_unsafe_globals_in_checkpoint(str(path)) if INERT.fullmatch(name)]
        except Exception:  # not a zip file, or damaged: opening it says what it is
            names = []
    with torch.serialization.safe_globals([(_Inert, name) for name in names]):
        yield


def open_part(path: Path) -> TensorSource:
    """Open one weights file or folder.

    Raises:
        CheckpointError, UnsafeFileError: Damaged, foreign, or with code in it.
    """
    with training_checkpoints_allowed(path):
        return open_checkpoint(path)


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a folder or beside a file, or {}."""
    file = folder / "config.json" if folder.is_dir() else folder.parent / "config.json"
    if not file.is_file():
        return {}
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}", fix="restore the file") from None
    return data if isinstance(data, dict) else {}


def save_refiner(refiner: Refiner, path: str | Path, *, layout: str = REFINER) -> list[Path]:
    """Write the refiner's weights as the reference has them, or under ``model.`` as its trainer does; the round trip is exact.

    Raises:
        CheckpointError: Unknown layout.
    """
    if layout not in (REFINER, LIGHTNING):
        raise CheckpointError(f"layout {layout!r} is unknown", fix=f"{REFINER} or {LIGHTNING}")
    prefix = "model." if layout == LIGHTNING else ""
    state = {prefix + key: value.detach().cpu().contiguous() for key, value in refiner.state_dict().items()}
    return save_checkpoint(state, Path(path))


def save(model: SparseRefine, folder: str | Path) -> list[Path]:
    """Write ``config.json``, ``baseline.safetensors`` (published keys) and ``refiner.safetensors``; ``zoo.load(folder)`` reads it back."""
    from zoo_sparse_refine.baselines import keymap_for

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    network = model.network
    dense = {key: value.detach().cpu().contiguous() for key, value in network.baseline.network.state_dict().items()}
    files = save_checkpoint(dense, target / BASELINE_FILE, keymap=keymap_for(network.baseline))
    if model.refines:
        files += save_refiner(network.refiner, target / REFINER_FILE)
    return [*files, write_config(model.config, target)]


def write_config(config: Any, folder: Path) -> Path:
    """``config.json`` of a folder with both parts (one rename)."""
    import os
    from dataclasses import asdict

    file = folder / "config.json"
    temporary = file.with_suffix(f".{os.getpid()}.part")
    temporary.write_text(json.dumps({"format": FORMAT, **asdict(config)}, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, file)
    return file
