"""How much memory encoding or decoding takes, from the configuration alone.

Counts the tensors that are alive at once in the most expensive block: for a residual block its input, the two convolution results and the norm; for the gated
convolution the input, both 8C tensors and their product; for up-sampling the enlarged input and the result.  Where the dtype is narrower than float32
the cores that run in float32 hold a wide copy as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo_core.errors import NotEnoughMemoryError
from zoo_dc_ae.config import AutoencoderConfig, CoderConfig

if TYPE_CHECKING:
    import torch


def _stage_elements(coder: CoderConfig, stage: int, wide: float, resampled_from: int | None) -> float:
    """Live elements per pixel of the stage; ``wide`` = 4 / itemsize of the dtype."""
    width = coder.widths[stage]
    extra = 2 * (wide - 1) if wide > 1 else 0.0  # float32 copy inside the norm
    if coder.depths[stage] == 0:
        return 0.0
    if coder.blocks[stage] == "res":
        live = (4 + extra) * width
    else:
        scales = 1 + len(coder.scales[stage])
        attention = width * (1 + 3 * (scales + 1) + (scales + 1)) + 3 * width * scales * wide
        live = max(width * (1 + 8 + 8 + 4), attention, (4 + extra) * width)
    if resampled_from is not None:
        live = max(live, resampled_from + 2 * width + (width if coder.resample in ("pixel_shuffle", "pixel_unshuffle") else 0))
    return live


def elements_per_pixel(config: AutoencoderConfig, what: str, itemsize: int = 4) -> float:
    """Largest number of live activation elements per picture pixel; ``what`` is ``"encode"`` or ``"decode"``."""
    coder = config.decoder if what == "decode" else config.encoder
    wide = 4 / itemsize
    best = 0.0
    for stage in range(len(coder.widths)):
        deeper = coder.widths[stage + 1] if stage + 1 < len(coder.widths) else None
        enlarged = deeper if what == "decode" and coder.resample == "interpolate" else (deeper // 4 if deeper and what == "decode" else None)
        best = max(best, _stage_elements(coder, stage, wide, enlarged) / 4**stage)
    ends = 2 * config.in_channels + (coder.widths[0] * 3 if coder.depths[0] else coder.widths[1] * 3 / 4)
    return max(best, ends) + config.in_channels


def parameter_count(config: AutoencoderConfig) -> int:
    """Parameters of encoder and decoder (built on the meta device)."""
    import torch

    from zoo_dc_ae.autoencoder import DCAE

    with torch.device("meta"):
        return sum(value.numel() for value in DCAE(config).parameters())


def estimate(config: AutoencoderConfig, height: int, width: int, *, what: str = "decode", batch: int = 1, dtype: torch.dtype | None = None) -> int:
    """Peak bytes of activations for pictures of ``height`` x ``width`` pixels (weights not included).

    >>> 3.0 < estimate(AutoencoderConfig(), 1024, 1024) / 2**30 < 6.0
    True
    """
    itemsize = dtype.itemsize if dtype is not None else 4
    return int(elements_per_pixel(config, what, itemsize) * height * width * batch * itemsize)


def estimate_exact(
    config: AutoencoderConfig, height: int, width: int, tile: tuple[int, int], *, what: str = "decode", batch: int = 1, itemsize: int = 4
) -> int:
    """Peak bytes with ``tiling="exact"``: the deep stages whole, the others one tile (with a margin of half its side) at a time."""
    from zoo_dc_ae.exact import local_stages

    coder = config.decoder if what == "decode" else config.encoder
    border = local_stages(coder)
    deep = max(_stage_elements(coder, stage, 4 / itemsize, None) / 4**stage for stage in range(border, len(coder.widths)))
    pixels = min(2 * tile[0], height) * min(2 * tile[1], width)
    return int(batch * itemsize * (deep * height * width + elements_per_pixel(config, what, itemsize) * pixels))


def available_bytes(device: Any) -> int | None:
    """Free memory of ``device``; None where that cannot be told."""
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "cpu":
        try:
            with open("/proc/meminfo", encoding="ascii") as lines:
                for line in lines:
                    if line.startswith("MemAvailable:"):
                        return int(line.split()[1]) * 1024
        except OSError:
            return None
    return None


def check_fits(needed: int, device: Any, what: str) -> None:
    """Raise :class:`~zoo_core.errors.NotEnoughMemoryError` when ``needed`` bytes are not there."""
    free = available_bytes(device)
    if free is not None and needed > free:
        raise NotEnoughMemoryError(
            f"{what} needs about {needed / 2**30:.1f} GiB, {device} has {free / 2**30:.1f} GiB free",
            fix="pass tiling='window' (smaller tile=... if need be), a smaller batch, or dtype='bfloat16'",
            needed=needed,
            free=free,
        )
