"""Batches whose order is a function of (seed, epoch), and a cursor that can stand anywhere in them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from zoo_core.errors import TrainingError
from zoo_core.training.seeding import isolated_rng, mix


class Batches:
    """Endless, shuffled, exactly resumable batches over an indexable data set; nothing is read ahead.

    Args:
        data: Sequence of samples, or a mapping of equally long tensors/arrays (then a batch is the mapping of gathered rows: fast).
        batch_size: Samples per batch and process.
        transform: ``transform(batch, generator) -> batch``, e.g. random crops; ``generator`` is seeded by (seed, batch position), so it resumes exactly.
        collate: Makes a batch from a list of samples (default: torch's).
        rank, world_size: Every process sees its own part of each epoch.

    The last incomplete batch of an epoch is dropped.

    >>> from zoo_core.training import Batches
    >>> next(iter(Batches({"x": torch.arange(4)}, batch_size=2, shuffle=False)))
    {'x': tensor([0, 1])}
    """

    def __init__(
        self,
        data: Sequence[Any] | Mapping[str, Any],
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        transform: Callable[[Any, torch.Generator], Any] | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.data, self.batch_size, self.seed, self.shuffle = data, batch_size, seed, shuffle
        self.transform, self.collate, self.rank, self.world_size = transform, collate, rank, world_size
        self.position = 0
        self.length = len(next(iter(data.values()))) if isinstance(data, Mapping) else len(data)
        self.per_epoch = self.length // (batch_size * world_size)
        if not self.per_epoch:
            wanted = f"{batch_size} x {world_size} processes"
            raise TrainingError(f"data set has {self.length} samples: too few for one batch of {wanted}", fix=f"batch_size={max(self.length // world_size, 1)}")

    def __iter__(self) -> Iterator[Any]:
        order: tuple[int, np.ndarray] | None = None
        while True:
            epoch, index = divmod(self.position, self.per_epoch)
            if order is None or order[0] != epoch:
                rng = np.random.default_rng([self.seed, epoch])
                order = epoch, rng.permutation(self.length) if self.shuffle else np.arange(self.length)
            start = (index * self.world_size + self.rank) * self.batch_size
            batch = self._gather(order[1][start : start + self.batch_size])
            if self.transform is not None:
                generator = torch.Generator().manual_seed(mix(self.seed, self.position, self.rank))
                batch = self.transform(batch, generator)
            self.position += 1
            yield batch

    def _gather(self, indices: np.ndarray) -> Any:
        if isinstance(self.data, Mapping):
            where = torch.from_numpy(indices)
            return {key: value[where] if isinstance(value, torch.Tensor) else torch.as_tensor(value[indices]) for key, value in self.data.items()}
        samples = [self.data[int(i)] for i in indices]
        if self.collate is not None:
            return self.collate(samples)
        from torch.utils.data import default_collate

        return default_collate(samples)

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "batch_size": self.batch_size, "length": self.length}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the saved batch; with another batch size, after the same number of samples."""
        self.position = int(state["position"]) * int(state.get("batch_size", self.batch_size)) // self.batch_size


class Cursor:
    """Endless walk over any iterable, with a position that can be saved.

    A source with ``state_dict``/``load_state_dict`` (:class:`Batches`, torchdata's stateful loader) resumes itself.  Any other iterable is walked again and
    the batches seen are skipped; its epochs start from a random state derived from (seed, epoch), so a shuffling ``DataLoader`` gives the same order again.
    """

    def __init__(self, source: Iterable[Any], seed: int) -> None:
        self.source, self.seed = source, seed
        self.stateful = hasattr(source, "state_dict") and hasattr(source, "load_state_dict")
        self.one_shot = not self.stateful and isinstance(source, Iterator)
        self.epoch = self.index = 0
        self._iterator: Iterator[Any] | None = None

    def __next__(self) -> Any:
        if self._iterator is None:
            batch = self._open()
        else:
            batch = next(self._iterator, _END)
            if batch is _END and not self.one_shot:
                self.epoch, self.index = self.epoch + 1, 0
                batch = self._open()
        if batch is _END:
            raise TrainingError(
                "the data ended before the last step" if self.epoch or self.index else "the data set is empty",
                fix="give a re-iterable data source, or fewer steps",
            )
        self.index += 1
        return batch

    def _open(self) -> Any:
        with isolated_rng(mix(self.seed, self.epoch)):
            if hasattr(self.source, "set_epoch"):
                self.source.set_epoch(self.epoch)
            self._iterator = iter(self.source)
            return next(self._iterator, _END)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"epoch": self.epoch, "index": self.index}
        if self.stateful:
            state["source"] = self.source.state_dict()  # type: ignore[attr-defined]
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch, self.index = int(state["epoch"]), int(state["index"])
        self._iterator = None
        if self.stateful:
            self.source.load_state_dict(state["source"])  # type: ignore[attr-defined]
            self._iterator = iter(self.source)
        elif self.index:
            first = self._open()
            if first is not _END:
                assert self._iterator is not None
                for _ in itertools.islice(self._iterator, self.index - 1):
                    pass


_END = object()
