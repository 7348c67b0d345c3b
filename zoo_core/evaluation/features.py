"""Feature spaces for Fréchet distances.

Only Inception features with the published weights give a number that may be called FID; every other space says its name: ``fd-<space>``.

| space | weights | metric |
|---|---|---|
| ``inception`` | local file of torch-fidelity (``weights-inception-2015-12-05-6726825d.pth``) | ``fid``; with any other file ``fd-inception-other`` |
| ``random-conv`` | none: a fixed, seeded convolutional network | ``fd-random-conv`` |
| ``pixels`` | none: the picture at 8 x 8 | ``fd-pixels`` |
| ``package.module:factory`` | ``factory(weights=..., device=...)`` returns ``f(uint8 [B, 3, H, W]) -> [B, D]`` | ``fd-<factory>`` |
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core.errors import EvaluationError, MissingDependencyError

if TYPE_CHECKING:
    import torch

Extract = Callable[["torch.Tensor"], "torch.Tensor"]


@dataclass(frozen=True, slots=True)
class FeatureSpace:
    """``extract`` maps uint8 pictures [B, 3, H, W] to features [B, D]; ``metric`` is the name that a distance in it carries."""

    name: str
    metric: str
    extract: Extract
    description: str


def feature_space(name: str, weights: str | None = None, device: str = "cpu") -> FeatureSpace:
    """The feature space ``name``.

    Raises:
        EvaluationError: Unknown name, or the weights file is needed and missing.
        MissingDependencyError: ``torch-fidelity`` is needed.
    """
    if name == "inception":
        extract, published = _inception(weights, device)
        text = "Inception-v3 pool features, 2048-d, " + (
            "torch-fidelity's port of the TensorFlow weights" if published else "weights that are not the published ones"
        )
        return FeatureSpace(name, "fid" if published else "fd-inception-other", extract, text)
    if name == "random-conv":
        return FeatureSpace(
            name,
            "fd-random-conv",
            _random_conv(device),
            "four strided convolutions with fixed random weights (seed 0), mean and deviation of the last maps, 128-d",
        )
    if name == "pixels":
        return FeatureSpace(name, "fd-pixels", _small, "8 x 8 pixels, 192-d")
    if ":" in name:
        from zoo_core.specs import TARGET, resolve

        if not TARGET.match(name):
            raise EvaluationError(f"features={name!r} is no target", fix="features=package.module:factory")
        factory: Any = resolve(name)
        return FeatureSpace(name, "fd-" + name.rpartition(":")[2].lower().replace("_", "-"), factory(weights=weights, device=device), name)
    raise EvaluationError(f"feature space {name!r} is unknown", fix="features=inception (with weights=FILE), random-conv, pixels or package.module:factory")


INCEPTION_SHA256 = "6726825d"
"""First digits of the digest of the published file (they stand in its name)."""


def _inception(weights: str | None, device: str) -> tuple[Extract, bool]:
    """The extractor, and whether its weights are the published ones."""
    import pickle
    import tempfile

    import torch

    from zoo_core.evaluation.provenance import sha256

    if not weights or not Path(weights).is_file():
        fix = "weights=weights-inception-2015-12-05-6726825d.pth, or features=random-conv"
        raise EvaluationError("FID needs the Inception weights as a local file", tried=[f"weights={weights}"], fix=fix)
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise MissingDependencyError("Inception features need the package torch-fidelity", fix="pip install torch-fidelity") from error
    with tempfile.TemporaryDirectory() as folder:  # torch-fidelity unpickles without restriction: it gets a copy that holds nothing but tensors
        copy = Path(folder) / "weights.pth"
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            torch.save({key: value for key, value in state.items() if isinstance(value, torch.Tensor)}, copy)
            network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(copy)).to(device).eval()
        except (pickle.UnpicklingError, RuntimeError, AttributeError, OSError) as error:
            raise EvaluationError(
                f"{weights} does not hold Inception weights: {str(error).splitlines()[0]}", fix="the file that torch-fidelity publishes"
            ) from error

    def extract(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            features: torch.Tensor = network(images.to(device))[0]
        return features.cpu()

    return extract, sha256(weights).startswith(INCEPTION_SHA256)


def _random_conv(device: str) -> Extract:
    import torch
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(0)
    widths = (3, 16, 32, 64, 64)
    kernels = [(torch.randn(o, i, 3, 3, generator=generator) * (2.0 / (9 * i)) ** 0.5).to(device) for i, o in itertools.pairwise(widths)]

    def extract(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = F.interpolate(images.to(device).float() / 127.5 - 1.0, size=(64, 64), mode="bilinear", antialias=True, align_corners=False)
            for kernel in kernels:
                x = F.leaky_relu(F.conv2d(x, kernel, stride=2, padding=1), 0.2)
            return torch.cat([x.mean((2, 3)), x.std((2, 3))], 1).cpu()

    return extract


def _small(images: torch.Tensor) -> torch.Tensor:
    import torch.nn.functional as F

    return F.interpolate(images.float() / 127.5 - 1.0, size=(8, 8), mode="bilinear", antialias=True, align_corners=False).flatten(1)
