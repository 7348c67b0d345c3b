"""Declarative, invertible maps from a published checkpoint's keys to a module's keys.

A map is a list of steps; each step rewrites the whole table of tensors, lazily: nothing is read until a tensor is asked for, and shapes of the result
are known from the shapes in the file.  ``keymap.inverse()`` undoes the steps in reverse order; only :class:`Drop` cannot be undone.

    KeyMap([
        Rename("encoder.stages.{s}.op_list.{j}.{rest*}", "encoder.down_blocks.{s}.{j}.{rest*}"),
        Split("{p*}.qkv.conv.weight", ["{p*}.to_q.weight", "{p*}.to_k.weight", "{p*}.to_v.weight"], dim=0),
        Reshape("{p*}.to_{x:q|k|v}.weight", "o i 1 1 -> o i"),
        Drop("{p*}.num_batches_tracked", "counts training steps only"),
    ])

A step that matches nothing does nothing (the strict key comparison of ``load_into`` tells what is left over).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zoo_core.checkpoint.source import DictSource, TensorSource
from zoo_core.checkpoint.template import AxisFormula, Template, pair, repr_call
from zoo_core.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Node:
    """A tensor to be: leaves of the source and what to do with them.  ``meta`` has its shape and dtype."""

    leaves: tuple[str, ...]
    meta: torch.Tensor
    compute: Callable[[TensorSource], torch.Tensor]

    def then(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Node:
        compute = self.compute
        return Node(self.leaves, change(self.meta), lambda source: change(compute(source)))


Table_ = dict[str, Node]


class Step:
    """One rewriting of the table of keys."""

    def apply(self, table: Table_) -> Table_:
        raise NotImplementedError

    def inverse(self) -> Step | None:
        """The step that undoes this one, or None when information was lost."""
        raise NotImplementedError


class Rename(Step):
    """Keys that match ``pattern`` become ``replacement`` (see :class:`~zoo_core.checkpoint.template.Template` for the slots)."""

    def __init__(self, pattern: str, replacement: str) -> None:
        self.pattern, self.replacement = pattern, replacement
        self._from, self._to = pair(pattern, replacement)

    def apply(self, table: Table_) -> Table_:
        return _collect((key if (slots := self._from.match(key)) is None else self._to.format(slots), node) for key, node in table.items())

    def inverse(self) -> Rename:
        return Rename(self.replacement, self.pattern)

    def __repr__(self) -> str:
        return repr_call("Rename", self.pattern, self.replacement)


class Table(Step):
    """Several renames at once: the first pattern that matches a key decides, so ``{"a": "b", "b": "a"}`` swaps."""

    def __init__(self, table: Mapping[str, str]) -> None:
        self.table = dict(table)
        self._pairs = [pair(one, other) for one, other in self.table.items()]

    def apply(self, table: Table_) -> Table_:
        return _collect((self._rename(key), node) for key, node in table.items())

    def _rename(self, key: str) -> str:
        for one, other in self._pairs:
            slots = one.match(key)
            if slots is not None:
                return other.format(slots)
        return key

    def inverse(self) -> Table:
        if len(set(self.table.values())) != len(self.table):
            raise CheckpointError(f"{self!r} has two patterns with one result and cannot be inverted", fix="make the results distinct")
        return Table({other: one for one, other in self.table.items()})

    def __repr__(self) -> str:
        return repr_call("Table", self.table)


class Split(Step):
    """One tensor becomes several along ``dim``: equal parts, or of the given ``sizes``."""

    def __init__(self, source: str, targets: Sequence[str], dim: int = 0, sizes: Sequence[int] | None = None) -> None:
        self.source, self.targets, self.dim, self.sizes = source, list(targets), dim, list(sizes) if sizes is not None else None
        self._pairs = [pair(source, target) for target in self.targets]
        _check_parts(self, len(self.targets), self.sizes)

    def apply(self, table: Table_) -> Table_:
        def rows() -> Any:
            for key, node in table.items():
                slots = self._pairs[0][0].match(key)
                if slots is None:
                    yield key, node
                    continue
                side = node.meta.shape[self.dim]
                sizes = self.sizes or [side // len(self.targets)] * len(self.targets)
                if sum(sizes) != side:
                    raise CheckpointError(f"tensor {key!r} of shape {tuple(node.meta.shape)} cannot be split into {sizes} along {self.dim}", tried=[repr(self)])
                start = 0
                for (_, target), size in zip(self._pairs, sizes, strict=True):
                    yield target.format(slots), node.then(functools.partial(torch.narrow, dim=self.dim, start=start, length=size))
                    start += size

        return _collect(rows())

    def inverse(self) -> Fuse:
        return Fuse(self.targets, self.source, self.dim, self.sizes)

    def __repr__(self) -> str:
        return repr_call("Split", self.source, self.targets, self.dim, sizes=self.sizes)


class Fuse(Step):
    """Several tensors become one along ``dim``.  Unequal parts need ``sizes``, else the map could not be inverted."""

    def __init__(self, sources: Sequence[str], target: str, dim: int = 0, sizes: Sequence[int] | None = None) -> None:
        self.sources, self.target, self.dim, self.sizes = list(sources), target, dim, list(sizes) if sizes is not None else None
        self._pairs = [pair(source, target) for source in self.sources]
        _check_parts(self, len(self.sources), self.sizes)

    def apply(self, table: Table_) -> Table_:
        groups: dict[str, list[str | None]] = {}
        member: dict[str, str] = {}
        for key in table:
            for index, (source, target) in enumerate(self._pairs):
                slots = source.match(key)
                if slots is not None:
                    fused = target.format(slots)
                    groups.setdefault(fused, [None] * len(self._pairs))[index] = key
                    member[key] = fused
                    break

        def rows() -> Any:
            done: set[str] = set()
            for key, node in table.items():
                fused = member.get(key)
                if fused is None:
                    yield key, node
                elif fused not in done:
                    done.add(fused)
                    yield fused, self._fuse(fused, groups[fused], table)

        return _collect(rows())

    def _fuse(self, fused: str, keys: list[str | None], table: Table_) -> Node:
        nodes = [table[key] for key in keys if key is not None]
        if len(nodes) != len(keys):
            raise CheckpointError(
                f"{fused!r} is made of {len(keys)} tensors, but the checkpoint has only {', '.join(repr(key) for key in keys if key)}", tried=[repr(self)]
            )
        sides = [node.meta.shape[self.dim] for node in nodes]
        if sides != (self.sizes or [sides[0]] * len(sides)):
            raise CheckpointError(
                f"parts of {fused!r} have lengths {sides} along {self.dim}, not {self.sizes or 'equal ones'}", tried=[repr(self)], fix=f"sizes={sides}"
            )
        shapes = [list(node.meta.shape) for node in nodes]
        total = sum(shape.pop(self.dim) for shape in shapes)
        if shapes != [shapes[0]] * len(shapes):
            raise CheckpointError(f"parts of {fused!r} do not fit together: {[tuple(node.meta.shape) for node in nodes]}", tried=[repr(self)])
        axis = self.dim % nodes[0].meta.ndim
        dtype = functools.reduce(torch.promote_types, (node.meta.dtype for node in nodes))
        # not torch.cat of meta tensors: its first call imports torch._dynamo, seconds on a slow machine
        meta = torch.empty([*shapes[0][:axis], total, *shapes[0][axis:]], dtype=dtype, device="meta")
        leaves = tuple(leaf for node in nodes for leaf in node.leaves)
        return Node(leaves, meta, lambda source: torch.cat([node.compute(source) for node in nodes], self.dim))

    def inverse(self) -> Split:
        return Split(self.target, self.sources, self.dim, self.sizes)

    def __repr__(self) -> str:
        return repr_call("Fuse", self.sources, self.target, self.dim, sizes=self.sizes)


class Transpose(Step):
    """Permute the axes of the tensors that match."""

    def __init__(self, pattern: str, dims: Sequence[int]) -> None:
        self.pattern, self.dims = pattern, list(dims)
        self._from = Template(pattern)
        if sorted(self.dims) != list(range(len(self.dims))):
            raise CheckpointError(f"{self!r}: dims is not a permutation", fix="e.g. dims=(1, 0)")

    def apply(self, table: Table_) -> Table_:
        return {key: node.then(self._permute) if self._from.match(key) is not None else node for key, node in table.items()}

    def _permute(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim != len(self.dims):
            raise CheckpointError(f"{self!r} does not fit the shape {tuple(tensor.shape)}")
        return tensor.permute(self.dims)

    def inverse(self) -> Transpose:
        return Transpose(self.pattern, [self.dims.index(axis) for axis in range(len(self.dims))])

    def __repr__(self) -> str:
        return repr_call("Transpose", self.pattern, self.dims)


class Reshape(Step):
    """Regroup the axes of the tensors that match, by an axis formula: ``Reshape("{p*}.weight", "o i 1 1 -> o i")``."""

    def __init__(self, pattern: str, formula: str, **sizes: int) -> None:
        self.pattern, self.formula = pattern, AxisFormula(formula, **sizes)
        self._from = Template(pattern)
        self.formula.inverse()  # fails now rather than when saving

    def apply(self, table: Table_) -> Table_:
        return {key: node.then(self.formula) if self._from.match(key) is not None else node for key, node in table.items()}

    def inverse(self) -> Reshape:
        back = self.formula.inverse()
        return Reshape(self.pattern, back.text, **back.sizes)

    def __repr__(self) -> str:
        return repr_call("Reshape", self.pattern, self.formula.text, **self.formula.sizes)


class Drop(Step):
    """Leave out the tensors that match; ``why`` says why the model does not need them."""

    def __init__(self, pattern: str, why: str) -> None:
        self.pattern, self.why = pattern, why
        self._from = Template(pattern)

    def apply(self, table: Table_) -> Table_:
        return {key: node for key, node in table.items() if self._from.match(key) is None}

    def inverse(self) -> None:
        return None

    def __repr__(self) -> str:
        return repr_call("Drop", self.pattern, self.why)


class KeyMap:
    """A list of steps; see the module's text.

    >>> keymap = KeyMap([Fuse(["{p*}.q", "{p*}.k"], "{p*}.qk", dim=0)])
    >>> keymap.apply({"a.q": torch.zeros(2, 3), "a.k": torch.ones(2, 3)}).shape("a.qk")
    (4, 3)
    >>> sorted(keymap.inverse().apply({"a.qk": torch.zeros(4, 3)}).keys())
    ['a.k', 'a.q']
    """

    def __init__(self, steps: Sequence[Step] = ()) -> None:
        self.steps = list(steps)

    @property
    def lossy(self) -> list[Drop]:
        """The steps that the inverse cannot undo."""
        return [step for step in self.steps if isinstance(step, Drop)]

    def apply(self, source: TensorSource | Mapping[str, torch.Tensor]) -> MappedSource:
        """A lazy view of ``source`` with the mapped keys.

        Raises:
            CheckpointError: Two tensors would get one key, or shapes do not fit a step.
        """
        return MappedSource(source if isinstance(source, TensorSource) else DictSource(source), self)

    def inverse(self) -> KeyMap:
        """The map that goes back; dropped tensors stay dropped (:attr:`lossy`)."""
        return KeyMap([back for step in reversed(self.steps) if (back := step.inverse()) is not None])

    def check(self, source: TensorSource | Mapping[str, torch.Tensor]) -> None:
        """Raise :class:`CheckpointError` unless the inverse leads ``source`` back to its own keys, shapes and dtypes (reads no tensor)."""
        mapped = self.apply(source)
        dropped = set(mapped.source.keys()) - {leaf for key in mapped for leaf in mapped.leaves(key)}
        back = self.inverse().apply(mapped)
        before = {key: (mapped.source.shape(key), mapped.source.dtype(key)) for key in mapped.source if key not in dropped}
        after = {key: (back.shape(key), back.dtype(key)) for key in back}
        wrong = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        if wrong:
            raise CheckpointError(f"the key map does not lead back for {len(wrong)} tensors", tried=wrong[:8], fix="make its patterns more specific")

    def __add__(self, other: KeyMap) -> KeyMap:
        return KeyMap([*self.steps, *other.steps])

    def __repr__(self) -> str:
        return f"KeyMap({self.steps!r})"


class MappedSource(TensorSource):
    """A source seen through a :class:`KeyMap`."""

    def __init__(self, source: TensorSource, keymap: KeyMap) -> None:
        self.source = source
        table: Table_ = {}
        for key in source:
            meta = torch.empty(source.shape(key), dtype=source.dtype(key), device="meta")
            table[key] = Node((key,), meta, lambda opened, key=key: opened.get(key))  # type: ignore[misc]
        for step in keymap.steps:
            table = step.apply(table)
        self._table = table

    def keys(self) -> list[str]:
        return list(self._table)

    def __contains__(self, key: object) -> bool:
        return key in self._table

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._table[key].meta.shape)

    def dtype(self, key: str) -> torch.dtype:
        return self._table[key].meta.dtype

    def get(self, key: str) -> torch.Tensor:
        return self._table[key].compute(self.source)

    def leaves(self, key: str) -> tuple[str, ...]:
        """The source's keys that ``key`` is made of."""
        return self._table[key].leaves

    def file(self, key: str) -> Path | None:
        return self.source.file(self._table[key].leaves[0])

    def keep(self, key: str) -> None:
        for leaf in self._table[key].leaves:
            self.source.keep(leaf)

    def release(self, key: str) -> None:
        for leaf in self._table[key].leaves:
            self.source.release(leaf)

    def metadata(self) -> dict[str, Any]:
        return self.source.metadata()

    def close(self) -> None:
        self.source.close()


def _collect(rows: Any) -> Table_:
    table: Table_ = {}
    for key, node in rows:
        if key in table:
            raise CheckpointError(
                f"the key map sends two tensors to {key!r}: {', '.join(table[key].leaves)} and {', '.join(node.leaves)}", fix="correct the key map"
            )
        table[key] = node
    return table


def _check_parts(step: Split | Fuse, count: int, sizes: list[int] | None) -> None:
    if count < 2 or (sizes is not None and (len(sizes) != count or min(sizes) < 0)):
        raise CheckpointError(f"{step!r}: needs two or more parts, and one size for each", fix="correct the key map")
