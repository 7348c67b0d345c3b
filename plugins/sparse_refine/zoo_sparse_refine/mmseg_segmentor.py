"""The refined model as a segmentor of mmsegmentation, so that its test runner, ``init_model`` and ``inference_model`` work with it unchanged.

In a configuration file of mmsegmentation:

    custom_imports = dict(imports=["zoo_sparse_refine.mmseg_segmentor"])
    model = dict(type="SparseRefineSegmentor", name="sparse-refine-hrnet-w48", weights="folder-or-file", options=dict(threshold=0.3))

Importing this module imports mmsegmentation and adds the class to its registry; nothing else of the plugin imports it.  The other direction, any model of
mmsegmentation as the dense baseline of a refined model, is :mod:`zoo_sparse_refine.baselines.mmseg_models`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo_core.errors import InputError
from zoo_sparse_refine.baselines.mmseg_models import import_mmseg, quiet

import_mmseg()

with quiet():
    from mmengine.structures import PixelData
    from mmseg.models.data_preprocessor import SegDataPreProcessor
    from mmseg.models.segmentors.base import BaseSegmentor
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

PIXELS = {"bgr_to_rgb": True}
"""What the segmentor wants from mmsegmentation's loader: R G B in 0..255, not normalised, not padded (the networks normalise for themselves)."""
RUN_TIME = ("refine", "threshold", "top_k", "budget")


@MODELS.register_module()
class SparseRefineSegmentor(BaseSegmentor):  # type: ignore[misc,unused-ignore]
    """Dense baseline and refiner behind mmsegmentation's interface.

    Args:
        name: A model of the zoo, or a handle that is loaded already.
        weights, overrides, load_options: As for ``zoo.load``.
        options: Options of ``segment``: ``refine``, ``threshold``, ``top_k``, ``budget``.
        seg_logits: Whether predictions also hold the full-size scores (classes x height x width floats per picture).
        data_preprocessor: Left at its default; a configuration that normalises pictures is refused.

    Raises:
        InputError: Unknown option, or a preprocessor that normalises.
    """

    def __init__(
        self,
        name: Any = "sparse-refine-streets",
        *,
        weights: str | None = None,
        overrides: Mapping[str, Any] | Sequence[str] | None = None,
        load_options: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        seg_logits: bool = False,
        data_preprocessor: Any = None,
        **unused: Any,
    ) -> None:
        given = {key: value for key, value in dict(data_preprocessor or PIXELS).items() if key != "type"}
        for key in ("mean", "std", "rgb_to_bgr", "size", "size_divisor", "test_cfg", "batch_augments"):
            if given.get(key):
                what = f"SparseRefineSegmentor normalises pictures itself and takes any size; data_preprocessor.{key} must not be set"
                raise InputError(what, fix="leave data_preprocessor out")
        super().__init__(data_preprocessor=SegDataPreProcessor(**given))
        unknown = [key for key in (options or {}) if key not in RUN_TIME] + [key for key, value in unused.items() if value is not None]
        if unknown:
            raise InputError(f"SparseRefineSegmentor does not know {unknown[0]!r}", fix=f"options are {', '.join(RUN_TIME)}")
        handle = _load(name, weights, overrides, load_options) if isinstance(name, str) else name
        self.network = handle.network
        self.options = {"refine": handle.refines, **_plain(options or {})}
        if self.options["refine"] and not handle.refines:
            raise InputError(f"{handle.name} was loaded without weights of the refiner", fix="give weights of the refiner, or options=dict(refine=False)")
        self.seg_logits = seg_logits
        self.num_classes, self.align_corners = len(handle.classes), False
        self.dataset_meta = {"classes": tuple(handle.classes), "palette": [list(colour) for colour in handle.palette]}

    def encode_decode(self, inputs: Tensor, batch_data_samples: Any = None) -> Tensor:
        """Full-size logits [B, C, H, W] of pictures [B, 3, H, W]: the coarse ones of the nearest pixel, and the ensembled ones where a pixel was refined."""
        return torch.cat([_full_logits(self._one(picture)) for picture in inputs.split(1)])

    def _one(self, picture: Tensor) -> tuple[Any, tuple[int, int]]:
        with torch.inference_mode():
            return self.network(picture, **self.options), (picture.shape[2], picture.shape[3])

    def predict(self, inputs: Tensor, data_samples: Any = None) -> list[Any]:
        """One ``SegDataSample`` per picture with ``pred_sem_seg`` at the original size; pictures are taken one by one, so a batch changes nothing."""
        samples = list(data_samples) if data_samples else [SegDataSample() for _ in inputs]
        for picture, sample in zip(inputs.split(1), samples, strict=True):
            meta = sample.metainfo
            made = self._one(picture)
            labels = _as_taken(made[0].labels[0][None], meta)
            sample.set_data({"pred_sem_seg": PixelData(data=_to_size(labels, meta.get("ori_shape")).long())})
            if self.seg_logits:
                logits = _as_taken(_full_logits(made)[0], meta)
                sample.set_data({"seg_logits": PixelData(data=_to_size(logits, meta.get("ori_shape"), "bilinear"))})
            refined = made[0].refined
            sample.set_metainfo({"refined_share": refined.selection.share if refined is not None else 0.0, "milliseconds": dict(made[0].milliseconds)})
        return samples

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """Coarse logits [B, C, h, w]."""
        from zoo_sparse_refine.pipeline import normalise

        return self.network.coarse(normalise(inputs))

    def _forward(self, inputs: Tensor, data_samples: Any = None) -> Tensor:
        return self.encode_decode(inputs)

    def loss(self, inputs: Tensor, data_samples: Any) -> dict[str, Tensor]:
        """Not here: the refiner has a recipe of its own.

        Raises:
            InputError: Always.
        """
        raise InputError("SparseRefineSegmentor is for inference and evaluation", fix="zoo train sparse-refine/refiner")


def _load(name: str, weights: str | None, overrides: Any, options: Mapping[str, Any] | None) -> Any:
    from zoo_core.loading import load

    return load(name, weights=weights, overrides=_plain(overrides), **{"device": "cpu", **_plain(options or {})})


def _plain(value: Any) -> Any:
    """Without the dictionary class of mmengine's configurations."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _full_logits(made: tuple[Any, tuple[int, int]]) -> Tensor:
    out, size = made
    logits = F.interpolate(out.scores.float(), size=size, mode="nearest")
    if out.refined is not None:
        image, row, column = out.refined.selection.coordinates.long().unbind(1)
        logits.permute(0, 2, 3, 1)[image, row, column] = out.refined.ensembled.float()
    return logits


def _as_taken(planes: Tensor, meta: Mapping[str, Any]) -> Tensor:
    """[C, H, W] turned back where the pipeline mirrored the picture (augmentation at test time)."""
    if not meta.get("flip"):
        return planes.clone()
    return planes.flip(2 if meta.get("flip_direction", "horizontal") == "horizontal" else 1)


def _to_size(planes: Tensor, size: Any, mode: str = "nearest") -> Tensor:
    """[C, H, W] at the picture's original size (pictures that the pipeline resized)."""
    if size is None or tuple(planes.shape[1:]) == tuple(size[:2]):
        return planes
    extra = {"align_corners": False} if mode == "bilinear" else {}
    return F.interpolate(planes[None].float(), size=tuple(size[:2]), mode=mode, **extra)[0].to(planes.dtype)
