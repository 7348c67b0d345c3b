"""Prepared captions: which batch rows a combination of guidance branches needs, and padding that no row needs."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from zoo_sana.transformer import Caption


def control_rows(controlnet: Any, captions: dict[tuple[bool, bool], Caption], features: tuple[Tensor, Tensor]) -> dict[tuple[bool, bool], Caption]:
    """The ControlNet projects the captions with its own weights, for the same combinations of branches."""
    full = controlnet.caption(*features)
    rows = {key: caption.memory[0][0].shape[0] for key, caption in captions.items()}
    total = max(rows.values())
    return {key: full if count == total else rows_of(full, total - count, None) for key, count in rows.items()}


def trim(features: list[Tensor], masks: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Cut off columns that are padding in every row: their attention weight, exp(-10000), is exactly 0, so only time is lost on them.

    A row without any text would attend uniformly; then nothing is cut.
    """
    if any(bool((mask.sum(1) == 0).any()) for mask in masks):
        return features, masks
    used = max(int(mask.any(0).nonzero().max()) + 1 for mask in masks)
    return [part[:, :used] for part in features], [mask[:, :used] for mask in masks]


def rows_of(caption: Caption, begin: int, end: int | None) -> Caption:
    """Batch rows of a prepared caption (views)."""
    part = slice(begin, end)
    return Caption([(k[part], v[part]) for k, v in caption.memory], None if caption.bias is None else caption.bias[part])
