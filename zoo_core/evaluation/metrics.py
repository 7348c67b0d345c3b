"""Shared image metrics with documented ranges.

PSNR, SSIM and LPIPS are those of torchmetrics; the Fréchet distance is computed here from stored features in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo_core.errors import EvaluationError, InputError, MissingDependencyError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image


def _torchmetrics() -> Any:
    try:
        import torchmetrics.functional.image as functional
    except ImportError as error:
        raise MissingDependencyError("image metrics need the package torchmetrics", fix="pip install torchmetrics") from error
    return functional


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """[-1, 1] to uint8: ``255 * (x + 1) / 2 + 0.5``, clamped to [0, 255] and truncated (the rule of the DC-AE evaluation)."""
    import torch

    return (255.0 * (images.float() + 1.0) / 2.0 + 0.5).clamp(0, 255).to(torch.uint8)


def pixels(images: Image | list[Image]) -> torch.Tensor:
    """RGB pictures of one size as uint8 [B, 3, H, W]."""
    import numpy as np
    import torch

    batch = [images] if not isinstance(images, list) else images
    arrays = [np.array(image.convert("RGB"), dtype=np.uint8) for image in batch]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def _pair(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    if a.shape != b.shape or a.dim() != 4:
        raise InputError(f"pictures have shapes {tuple(a.shape)} and {tuple(b.shape)}", fix="give two uint8 tensors [B, 3, H, W] of one shape")
    if a.dtype != torch.uint8 or b.dtype != torch.uint8:
        raise InputError(f"pictures are {a.dtype} and {b.dtype}", fix="convert with zoo_core.evaluation.metrics.to_uint8")
    return a.float(), b.float()


def psnr(a: torch.Tensor, b: torch.Tensor) -> list[float]:
    """Peak signal-to-noise ratio in dB per picture over uint8 values (peak 255); 100 for equal pictures, where it is infinite."""
    x, y = _pair(a, b)
    functional = _torchmetrics()
    values = [float(functional.peak_signal_noise_ratio(one, other, data_range=255.0)) for one, other in zip(x, y, strict=True)]
    return [min(value, 100.0) for value in values]


def ssim(a: torch.Tensor, b: torch.Tensor) -> list[float]:
    """Structural similarity per picture in [-1, 1]: torchmetrics, Gaussian window 11, sigma 1.5, data range 255.  Needs at least 11 x 11 pixels."""
    x, y = _pair(a, b)
    if min(x.shape[-2:]) < 11:
        raise InputError(f"SSIM needs pictures of at least 11 x 11 pixels, not {tuple(x.shape[-2:])}")
    functional = _torchmetrics()
    return [float(functional.structural_similarity_index_measure(one[None], other[None], data_range=255.0)) for one, other in zip(x, y, strict=True)]


class Lpips:
    """Learned perceptual distance (0: equal), AlexNet, torchmetrics; inputs uint8.

    Raises:
        EvaluationError: The AlexNet weights are not in torch hub's checkpoint folder; nothing is downloaded silently.
    """

    FILE = "alexnet-owt-7be5be79.pth"

    def __init__(self) -> None:
        from pathlib import Path

        import torch

        path = Path(torch.hub.get_dir()) / "checkpoints" / self.FILE
        if not path.exists():
            raise EvaluationError("LPIPS needs the ImageNet weights of AlexNet", tried=[str(path)], fix=f"put {self.FILE} there, or lpips=false")
        try:
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
        except ImportError as error:
            raise MissingDependencyError("image metrics need the package torchmetrics", fix="pip install torchmetrics") from error
        self.metric = LearnedPerceptualImagePatchSimilarity("alex", normalize=True).eval()

    def __call__(self, a: torch.Tensor, b: torch.Tensor) -> list[float]:
        import torch

        x, y = _pair(a, b)
        with torch.no_grad():
            return [float(self.metric(one[None] / 255.0, other[None] / 255.0)) for one, other in zip(x, y, strict=True)]


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance between Gaussians fitted to two feature sets [N, D] (>= 2 rows each), in float64.

    ``|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))``; the root's trace comes from the eigenvalues of ``S_a S_b``
    (real and non-negative but for rounding).
    """
    import numpy as np

    return frechet_from_moments(*(part for features in (a, b) for part in moments(np.asarray(features))))


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and unbiased covariance [D, D] in float64."""
    import numpy as np

    data = np.asarray(features, dtype=np.float64)
    if data.ndim != 2 or len(data) < 2:
        raise InputError(f"features have shape {data.shape}", fix="give at least two rows [N, D]")
    return data.mean(0), np.cov(data, rowvar=False).reshape(data.shape[1], data.shape[1])


def frechet_from_moments(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """Fréchet distance from means and covariances."""
    import numpy as np

    difference = mean_a - mean_b
    roots = np.sqrt(np.clip(np.linalg.eigvals(cov_a @ cov_b).real, 0.0, None))
    return float(difference @ difference + np.trace(cov_a) + np.trace(cov_b) - 2.0 * roots.sum())
