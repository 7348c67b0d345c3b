"""Where the tokens of a group of kv-heads live: a growing buffer (full heads) or sinks plus a ring (streaming heads).

Both hold any number of tensors [batch, heads, tokens, dim] (usually key and value), each in the parts of a storage format.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from zoo_llm.caches.storage import Storage

Parts = tuple[torch.Tensor, ...]


def part_bytes(parts: Sequence[torch.Tensor], tokens: int | None = None) -> int:
    """Bytes of ``parts``, or of their first ``tokens`` tokens."""
    total = 0
    for part in parts:
        per_token = part.shape[:-2].numel() * part.shape[-1] * part.element_size()
        total += per_token * (part.shape[-2] if tokens is None else tokens)
    return total


class GrowingStore:
    """Keeps every token.  Buffers grow by an eighth (at least 256 tokens), so appending costs amortised constant time and wastes little.

    Args:
        storage: One format for all tensors.
        reserve: Tokens to allocate at once (when the final length is known).
    """

    def __init__(self, storage: Storage, reserve: int = 0) -> None:
        self.storage = storage
        self.reserve = reserve
        self.length = 0
        self.buffers: list[list[torch.Tensor]] = []

    def append(self, tensors: Sequence[torch.Tensor]) -> None:
        """Add tokens; ``tensors`` each [batch, heads, new, dim]."""
        encoded = [list(self.storage.encode(t)) for t in tensors]
        new = tensors[0].shape[-2]
        if not self.buffers:
            self.buffers = [[self._allocate(part, max(self.reserve, new)) for part in parts] for parts in encoded]
        capacity = self.buffers[0][0].shape[-2]
        if self.length + new > capacity:
            capacity = max(self.length + new, capacity + max(256, capacity // 8))
            for parts in self.buffers:
                for i, old in enumerate(parts):
                    parts[i] = self._allocate(old, capacity)
                    parts[i][..., : self.length, :] = old[..., : self.length, :]
        for parts, fresh in zip(self.buffers, encoded, strict=True):
            for buffer, part in zip(parts, fresh, strict=True):
                buffer[..., self.length : self.length + new, :] = part
        self.length += new

    @staticmethod
    def _allocate(like: torch.Tensor, tokens: int) -> torch.Tensor:
        return like.new_empty((*like.shape[:-2], tokens, like.shape[-1]))

    def parts(self, index: int) -> Parts:
        """Stored parts of tensor ``index``, live tokens only (views)."""
        return tuple(part[..., : self.length, :] for part in self.buffers[index])

    def values(self, index: int, dtype: torch.dtype) -> torch.Tensor:
        """Tensor ``index`` as [batch, heads, length, dim] in ``dtype`` (a view for native storage in the same dtype)."""
        return self.storage.decode(self.parts(index), dtype)

    def crop(self, length: int) -> None:
        self.length = min(self.length, length)

    def map_batch(self, function: object) -> None:
        """Apply ``function(part) -> part`` (a batch selection) to every buffer."""
        for parts in self.buffers:
            parts[:] = [function(part) for part in parts]  # type: ignore[operator]

    def bytes(self) -> tuple[int, int, int]:
        """(used, allocated, overhead of scales and zeros as part of used)."""
        used = sum(part_bytes(parts, self.length) for parts in self.buffers)
        allocated = sum(part_bytes(parts) for parts in self.buffers)
        overhead = sum(part_bytes(parts[1:], self.length) for parts in self.buffers)
        return used, allocated, overhead


class SinkRingStore:
    """Keeps the first ``sink`` tokens and the last ``recent + 1`` ones in constant memory.

    One buffer of ``sink + recent + 1`` slots: sinks first, then a ring.  Token at column ``c >= sink`` lies in slot ``sink + (c - sink) % (recent +
    1)``; a decode
    step overwrites one slot and may attend to the whole buffer without mask or copy, seeing ``sink + recent`` older tokens and itself.

    With left padding, row ``b`` has its sinks at columns ``first[b] ... first[b] + sink - 1``; then ring slots that hold columns before ``first[b] + sink`` are
    not valid for that row (:meth:`columns` says so with -1).
    """

    def __init__(self, storage: Storage, sink: int, recent: int) -> None:
        self.storage = storage
        self.sink, self.recent, self.ring = sink, recent, recent + 1
        self.length = 0
        self.buffers: list[list[torch.Tensor]] = []

    def _initialise(self, encoded: Sequence[Sequence[torch.Tensor]]) -> None:
        slots = self.sink + self.ring
        self.buffers = [[part.new_zeros((*part.shape[:-2], slots, part.shape[-1])) for part in parts] for parts in encoded]

    def append(self, tensors: Sequence[torch.Tensor], first: torch.Tensor | None = None) -> None:
        """Add tokens and forget what the policy drops; ``first`` [batch] is the first real column per row (left padding)."""
        encoded = [self.storage.encode(t) for t in tensors]
        if not self.buffers:
            self._initialise(encoded)
        new, start = tensors[0].shape[-2], self.length
        device = tensors[0].device
        if first is None:
            into_sink = max(0, min(self.sink - start, new))
            for parts, fresh in zip(self.buffers, encoded, strict=True):
                for buffer, part in zip(parts, fresh, strict=True):
                    if into_sink:
                        buffer[..., start : start + into_sink, :] = part[..., :into_sink, :]
        else:
            into_sink = 0
            self._gather_sinks(encoded, first, start, new)
        begin = max(into_sink, new - self.ring)
        if begin < new:
            if new - begin == 1:
                slot = self.sink + (start + begin - self.sink) % self.ring
                for parts, fresh in zip(self.buffers, encoded, strict=True):
                    for buffer, part in zip(parts, fresh, strict=True):
                        buffer[..., slot : slot + 1, :] = part[..., begin:, :]
            else:
                slots = self.sink + (torch.arange(start + begin, start + new, device=device) - self.sink) % self.ring
                for parts, fresh in zip(self.buffers, encoded, strict=True):
                    for buffer, part in zip(parts, fresh, strict=True):
                        buffer.index_copy_(-2, slots, part[..., begin:, :])
        self.length += new

    def _gather_sinks(self, encoded: Sequence[Sequence[torch.Tensor]], first: torch.Tensor, start: int, new: int) -> None:
        """Copy, per row, the sink columns that lie in this call."""
        wanted = first[:, None] + torch.arange(self.sink, device=first.device)  # [batch, sink] columns
        here = (wanted >= start) & (wanted < start + new)
        index = (wanted - start).clamp(0, new - 1)
        for parts, fresh in zip(self.buffers, encoded, strict=True):
            for buffer, part in zip(parts, fresh, strict=True):
                picked = part.gather(-2, index[:, None, :, None].expand(-1, part.shape[1], -1, part.shape[-1]))
                buffer[..., : self.sink, :] = torch.where(here[:, None, :, None], picked, buffer[..., : self.sink, :])

    @property
    def whole(self) -> bool:
        """Whether every slot holds a live token (no padding considered)."""
        return self.length >= self.sink + self.ring

    def columns(self, first: torch.Tensor | None = None, device: torch.device | None = None) -> torch.Tensor:
        """Column held by each slot, [1 or batch, slots]; -1 where the slot holds nothing for that row."""
        if first is not None:
            device = first.device
        slot = torch.arange(self.ring, device=device)
        last = self.length - 1
        ring = last - ((last - self.sink) - slot) % self.ring
        if first is None:
            sinks = torch.arange(self.sink, device=device)
            sinks = torch.where(sinks < self.length, sinks, -1)
            ring = torch.where(ring >= self.sink, ring, -1)
            return torch.cat((sinks, ring))[None]
        sinks = first[:, None] + torch.arange(self.sink, device=device)
        sinks = torch.where(sinks < self.length, sinks, -1)
        ring = torch.where((ring >= 0) & (ring >= first[:, None] + self.sink), ring, -1)
        return torch.cat((sinks, ring.expand(len(first), -1)), dim=1)

    def parts(self, index: int) -> Parts:
        """Stored parts of tensor ``index`` in slot order, slots in use only (views; rows without padding)."""
        live = min(self.length, self.sink + self.ring)
        return tuple(part[..., :live, :] for part in self.buffers[index])

    def values(self, index: int, dtype: torch.dtype) -> torch.Tensor:
        """Tensor ``index`` in slot order [batch, heads, sink + recent + 1, dim]."""
        return self.storage.decode(self.buffers[index], dtype)

    def ordered(self, index: int, dtype: torch.dtype) -> torch.Tensor:
        """First ``sink`` and last ``recent`` tokens in order, without padding [batch, heads, <= sink + recent, dim]."""
        columns = self.columns(device=self.buffers[index][0].device)[0]
        order = torch.argsort(columns)
        order = order[columns[order] >= 0]
        head, tail = order[: min(self.sink, self.length)], order[min(self.sink, self.length) :]
        return self.values(index, dtype)[..., torch.cat((head, tail[-self.recent :] if self.recent else tail[:0])), :]

    def snapshot(self) -> tuple[int, list[list[torch.Tensor]]]:
        """Copy of the state, for :meth:`restore`."""
        return self.length, [[part.clone() for part in parts] for parts in self.buffers]

    def restore(self, state: tuple[int, list[list[torch.Tensor]]]) -> None:
        self.length, self.buffers = state[0], state[1]

    def map_batch(self, function: object) -> None:
        for parts in self.buffers:
            parts[:] = [function(part) for part in parts]  # type: ignore[operator]

    def bytes(self) -> tuple[int, int, int]:
        live = min(self.length, self.sink + self.ring)
        used = sum(part_bytes(parts, live) for parts in self.buffers)
        allocated = sum(part_bytes(parts) for parts in self.buffers)
        overhead = sum(part_bytes(parts[1:], live) for parts in self.buffers)
        return used, allocated, overhead
