"""Advice to the kernel about pages; without effect where it does not exist."""

from __future__ import annotations

import mmap

import torch


def release_pages(tensor: torch.Tensor) -> None:
    """Drop the pages that lie wholly inside a file-mapped tensor that nobody wrote to; they are read again when touched."""
    import ctypes

    advice = getattr(mmap, "MADV_DONTNEED", None)
    begin, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    first, last = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
    if advice is not None and last > first and tensor.is_contiguous():
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), advice)
