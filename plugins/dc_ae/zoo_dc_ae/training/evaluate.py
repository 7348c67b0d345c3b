"""Held-out measures of an autoencoder: PSNR and SSIM on uint8 pictures, a reconstruction sheet, and Frechet distance of latents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo_dc_ae.training.data import compose


def to_uint8(images: Tensor) -> Tensor:
    """[-1, 1] to uint8 by ``255 * (x + 1) / 2 + 0.5``, clamped and truncated (the evaluation protocol of the reference)."""
    return (255 * (images.float() + 1) / 2 + 0.5).clamp(0, 255).to(torch.uint8)


@torch.no_grad()
def reconstruct_all(model: nn.Module, pictures: Tensor, batch: int = 32, bfloat16: bool = False) -> tuple[Tensor, Tensor]:
    """uint8 originals (on white) and reconstructions, both [N, 3, H, W]."""
    device = next(model.parameters()).device
    real, made = [], []
    for part in pictures.split(batch):
        images = compose(part).to(device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            output = model(images)
        real.append(to_uint8(images).cpu())
        made.append(to_uint8(output).cpu())
    return torch.cat(real), torch.cat(made)


def psnr(real: Tensor, made: Tensor) -> Tensor:
    """Per picture, over uint8 values, peak 255: [N]."""
    error = (real.float() - made.float()).square().mean((1, 2, 3)).clamp(min=1e-8)
    return 10 * torch.log10(255.0**2 / error)


def ssim(real: Tensor, made: Tensor, batch: int = 64) -> float:
    """Mean SSIM of torchmetrics, data range 0..255."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    values = [
        structural_similarity_index_measure(b.float(), a.float(), data_range=255.0, reduction="none") for a, b in zip(real.split(batch), made.split(batch))
    ]
    return float(torch.cat([value.reshape(-1) for value in values]).mean())


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Frechet distance of two sets of features [N, D] (float64; torchmetrics' formula through eigenvalues)."""
    a, b = first.double(), second.double()
    means, covariances = (a.mean(0), b.mean(0)), (torch.cov(a.T), torch.cov(b.T))
    trace = torch.linalg.eigvals(covariances[0] @ covariances[1]).sqrt().real.sum()
    return float((means[0] - means[1]).square().sum() + covariances[0].trace() + covariances[1].trace() - 2 * trace)


def latent_features(encode: Callable[[Tensor], Tensor], images: Tensor, batch: int = 32) -> Tensor:
    """Flattened latents of uint8 pictures [N, 3, H, W]: features for distances where no Inception network is at hand."""
    with torch.no_grad():
        parts = [encode(part.float() / 127.5 - 1).flatten(1) for part in images.split(batch)]
    return torch.cat(parts)


def sheet(real: Tensor, made: Tensor, columns: int = 12) -> Tensor:
    """uint8 [3, H, W]: rows of originals, each with its reconstructions below."""
    columns = min(columns, len(real))
    count = len(real) // columns * columns
    rows = []
    for start in range(0, count, columns):
        for part in (real, made):
            rows.append(torch.cat(list(part[start : start + columns]), dim=2))
    return torch.cat(rows, dim=1)


def save_png(image: Tensor, path: str | Path) -> Path:
    """uint8 [3, H, W] to a PNG file."""
    from PIL import Image

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(path)
    return path
