"""Advice to the kernel about pages; without effect where it does not exist."""

from __future__ import annotations

import mmap

import torch

HUGE = 4 << 20
"""From this size in bytes, new tensors ask for huge pages: filling one then takes a five-hundredth of the page faults."""


def release_pages(tensor: torch.Tensor) -> None:
    """Drop the pages that lie wholly inside a file-mapped tensor that nobody wrote to; they are read again when touched."""
    if tensor.is_contiguous():
        _advise(tensor, getattr(mmap, "MADV_DONTNEED", None))


def empty(shape: torch.Size | tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """``torch.empty``, on huge pages where that helps."""
    tensor = torch.empty(shape, dtype=dtype, device=device)
    if device.type == "cpu" and tensor.nbytes >= HUGE:
        _advise(tensor, getattr(mmap, "MADV_HUGEPAGE", None))
    return tensor


def _advise(tensor: torch.Tensor, advice: int | None) -> None:
    import ctypes

    begin, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    first, last = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
    if advice is not None and last > first:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), advice)
