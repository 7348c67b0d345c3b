"""Any model of mmsegmentation, from its own configuration files or a model dictionary, without compiled mmcv."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from zoo_core.errors import ConfigError, MissingDependencyError
from zoo_sparse_refine import mmcv_ops
from zoo_sparse_refine.baselines import Baseline
from zoo_sparse_refine.config import BaselineConfig

BASES_SEED = 0


def import_mmseg() -> Any:
    """The package ``mmseg`` with its models registered.

    Raises:
        MissingDependencyError: It, or one of the packages it needs, is not installed.
    """
    try:
        mmcv_ops.install()
        with quiet():
            import mmseg
            import mmseg.models
    except ImportError as error:
        raise MissingDependencyError(
            "baselines of mmsegmentation need mmsegmentation and mmcv",
            tried=[str(error)],
            fix="pip install 'mmsegmentation>=1.2.2' 'mmcv-lite>=2.1,<2.2' ftfy regex",
        ) from error
    return mmseg


@contextmanager
def quiet() -> Iterator[None]:
    """Without the notices that mmcv and mmsegmentation print when they are imported and used as intended."""
    logger = logging.getLogger("mmengine")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def config_folder() -> Path:
    """Where the installed mmsegmentation keeps its configuration files."""
    return Path(import_mmseg().__file__).parent / ".mim" / "configs"


def read_config(name: str) -> dict[str, Any]:
    """The model dictionary of a configuration file of mmsegmentation: a name below its own ``configs`` or a path of your own (the file is Python and is run).

    Raises:
        ConfigError: There is no such file.
    """
    import_mmseg()
    from mmengine.config import Config

    own = config_folder() / name
    path = own if own.is_file() and own.resolve().is_relative_to(config_folder().resolve()) else Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(f"mmsegmentation has no configuration {name!r}", fix="name a file below its configs (hrnet/...py) or give a path")
    with quiet():
        model = Config.fromfile(str(path)).to_dict()["model"]
    return dict(model)


def model_dictionary(config: BaselineConfig, num_classes: int) -> dict[str, Any]:
    """The model dictionary to build: the file's, with the configuration's own entries over it, set up for inference from a checkpoint.

    SyncBN becomes BN (same keys), initial weights and data preprocessing are left out, and the heads get ``num_classes``.
    """
    given = copy.deepcopy(dict(config.model))
    file = given.pop("file", None)
    model = _merged(read_config(str(file)), given) if file else given
    if not model.get("type"):
        raise ConfigError("baseline.model has neither 'file' nor 'type'", fix="baseline.model.file=hrnet/fcn_hr48_4xb2-80k_cityscapes-512x1024.py")
    model = _plain(model)
    model["data_preprocessor"] = None
    heads = [model.get("decode_head"), *([model["auxiliary_head"]] if isinstance(model.get("auxiliary_head"), dict) else model.get("auxiliary_head") or ())]
    for head in heads:
        if head is not None:
            head["num_classes"] = num_classes
    return model


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        out[key] = _merged(out[key], value) if isinstance(value, Mapping) and isinstance(out.get(key), Mapping) else value
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        plain = {key: _plain(item) for key, item in value.items() if key not in ("init_cfg", "pretrained")}
        if plain.get("type") == "SyncBN":
            plain["type"] = "BN"
        return plain
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


class _RampsOnCpu(TorchFunctionMode):
    """``torch.linspace`` on the CPU also below ``torch.device("meta")``: constructors read drop-path rates from it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


class MMSegBaseline(Baseline):
    """An ``EncoderDecoder`` of mmsegmentation; keys are the published ones.

    Attributes:
        bases: For heads with matrix decomposition (SegNeXt): the bases [B, D, R] to use instead of drawing them.
    """

    def __init__(self, config: BaselineConfig, model: Mapping[str, Any]) -> None:
        super().__init__(config)
        import_mmseg()
        from mmseg.registry import MODELS

        self.model_dictionary = dict(model)
        self.bases: Tensor | None = None
        with quiet(), _RampsOnCpu():
            try:
                self.network = MODELS.build(copy.deepcopy(self.model_dictionary))
            except (KeyError, TypeError, AssertionError) as error:
                raise ConfigError(f"mmsegmentation cannot build this {model.get('type')}", tried=[str(error)[:300]], fix="check baseline.model") from error
        for module in self.network.modules():
            if hasattr(module, "_build_bases"):
                module._build_bases = self._bases  # drawn anew at every forward, also in eval: with a fixed seed the same picture gives the same result

    def _bases(self, batch: int, spatial: int, width: int, rank: int, device: Any = None) -> Tensor:
        if self.bases is not None:
            return self.bases.to(device)
        drawn = torch.rand((batch * spatial, width, rank), generator=torch.Generator().manual_seed(BASES_SEED))
        return torch.nn.functional.normalize(drawn, dim=1).to(device)

    def raw(self, image: Tensor) -> Tensor:
        """Output of the decode head."""
        with quiet():
            return self.network.decode_head(self.features(image))

    def features(self, image: Tensor) -> Any:
        """Stages of the backbone (after the neck, where there is one)."""
        found = self.network.backbone(image)
        return self.network.neck(found) if getattr(self.network, "with_neck", False) else found
