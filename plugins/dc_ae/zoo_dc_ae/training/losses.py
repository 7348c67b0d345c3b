"""Reconstruction and adversarial losses; pictures are [B, 3, H, W] in [-1, 1]."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo_dc_ae.training.config import LossConfig


def laplacian_pyramid(images: Tensor, levels: int = 3) -> list[Tensor]:
    """Differences between successive 2x2-average scales, finest first, and the coarsest picture last."""
    parts = []
    for _ in range(levels):
        small = F.avg_pool2d(images, 2)
        parts.append(images - F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False))
        images = small
    return [*parts, images]


def reconstruction_loss(output: Tensor, target: Tensor, weights: LossConfig, lpips: Callable[[Tensor, Tensor], Tensor] | None = None) -> dict[str, Tensor]:
    """``loss`` (weighted sum) and its parts, computed in float32.

    The pyramid is linear, so the pyramid of the error is taken: half the work.
    """
    error = output.float() - target.float()
    parts = {"l1": error.abs().mean(), "l2": error.square().mean()}
    if weights.detail:
        levels = laplacian_pyramid(error)[:-1]
        parts["detail"] = torch.stack([level.abs().mean() for level in levels]).mean()
    if weights.lpips and lpips is not None:
        parts["lpips"] = lpips(output.float().clamp(-1, 1), target.float())
    total = sum(getattr(weights, name) * value for name, value in parts.items())
    return {"loss": total, **{name: value.detach() for name, value in parts.items()}}  # type: ignore[dict-item]


def trunk_excess(streams: Sequence[Tensor], limit: float) -> Tensor:
    """Sum over the stages' outputs of how far their root mean square exceeds ``limit``: keeps the trunk on the scale of the normalised branches."""
    return torch.stack([F.relu(stream.float().square().mean().sqrt() - limit) for stream in streams]).sum()


class PatchCritic(nn.Module):
    """PatchGAN critic: strided 4x4 convolutions, group norm, one logit per patch [B, 1, H/8, W/8]."""

    def __init__(self, width: int = 32, channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for factor in (1, 2):
            layers += [nn.Conv2d(width * factor, width * factor * 2, 4, 2, 1), nn.GroupNorm(8, width * factor * 2), nn.LeakyReLU(0.2)]
        layers.append(nn.Conv2d(width * 4, 1, 3, 1, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the critic from its logits."""
    return 0.5 * (F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean())


def make_lpips(device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """LPIPS (AlexNet) of torchmetrics for inputs in [-1, 1]; raises what torchmetrics raises when its weights are not on this machine."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity(net_type="alex").to(device).requires_grad_(False)
