"""Layouts by their keys, and two small notations of key maps: key templates and axis formulas.  Both can be read in either direction, which is what
makes a map invertible."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from zoo_core.errors import CheckpointError
from zoo_core.specs import WeightsSpec

_SLOT = re.compile(r"\{([A-Za-z_]\w*)?(?:(\*)|:([^{}]+))?\}")


class Template:
    """A whole key with slots.

    ``{name}`` stands for one or more characters without a dot, ``{name*}`` for any run of characters (also none), ``{name:int}`` for digits and
    ``{name:weight|bias}`` for one of the words.  Everything else is literal.

    >>> Template("blocks.{i:int}.{rest*}").match("blocks.3.attn.weight")
    {'i': '3', 'rest': 'attn.weight'}
    """

    def __init__(self, text: str, kinds: dict[str, str] | None = None) -> None:
        self.text = text
        self.kinds: dict[str, str] = {}
        pattern, last, anonymous = "", 0, 0
        self._parts: list[str | None] = []  # literal, or None for the next slot
        self.slots: list[str] = []
        for found in _SLOT.finditer(text):
            name = found.group(1)
            if name is None:
                name, anonymous = f"_{anonymous}", anonymous + 1
            kind = (kinds or {}).get(name) or ("*" if found.group(2) else found.group(3) or "")
            body = {"": r"[^.]+", "*": r".*", "int": r"\d+"}.get(kind) or "|".join(re.escape(word) for word in kind.split("|"))
            pattern += re.escape(text[last : found.start()]) + (f"(?P={name})" if name in self.slots else f"(?P<{name}>{body})")
            self._parts += [text[last : found.start()], None]
            self.slots.append(name)
            self.kinds[name] = kind
            last = found.end()
        self._parts.append(text[last:])
        if "{" in text[last:] or any(part and ("{" in part or "}" in part) for part in self._parts):
            raise CheckpointError(f"key template {text!r} has an unpaired brace", fix="slots are {name}, {name*}, {name:int}, {name:a|b}")
        self._pattern = re.compile(pattern + re.escape(text[last:]) + r"\Z", re.DOTALL)

    def match(self, key: str) -> dict[str, str] | None:
        """Slot values when the whole ``key`` fits, else None."""
        found = self._pattern.match(key)
        return found.groupdict() if found else None

    def format(self, values: dict[str, str]) -> str:
        """The key with the slots filled in."""
        names = iter(self.slots)
        return "".join(values[next(names)] if part is None else part for part in self._parts)


def pair(one: str, other: str) -> tuple[Template, Template]:
    """Two templates with the same slots; a slot's kind may be written on either side."""
    left, right = Template(one), Template(other)
    if set(left.slots) != set(right.slots):
        raise CheckpointError(
            f"key templates {one!r} and {other!r} have different slots", fix="use every {slot} on both sides, so that the map can be inverted"
        )
    clash = [name for name in left.kinds if left.kinds[name] and right.kinds[name] and left.kinds[name] != right.kinds[name]]
    if clash:
        raise CheckpointError(f"key templates {one!r} and {other!r} give the slot {clash[0]!r} two kinds", fix="write the kind once")
    kinds = {name: left.kinds[name] or right.kinds[name] for name in left.kinds}
    return Template(one, kinds), Template(other, kinds)


class AxisFormula:
    """``"o i 1 1 -> o i"`` or ``"(three h d) c -> (h three d) c"``: regroup, permute, insert and remove axes of length one.

    Every name stands on both sides; in a group at most one length may be unknown, the others are given by name.

    >>> AxisFormula("(h d) c -> d h c", h=2)(torch.zeros(6, 5)).shape
    torch.Size([3, 2, 5])
    """

    def __init__(self, text: str, **sizes: int) -> None:
        self.text, self.sizes = text, dict(sizes)
        left, arrow, right = text.partition("->")
        self.left, self.right = _axes(left), _axes(right)
        names, others = [name for group in self.left for name in group], [name for group in self.right for name in group]
        if not arrow or len(set(names)) != len(names) or sorted(names) != sorted(others):
            raise CheckpointError(f"axis formula {text!r} is not valid", fix='write every axis once on each side, as in "o i 1 1 -> o i"')
        for group in (*self.left, *self.right):
            unknown = [name for name in group if name not in sizes]
            if len(unknown) > 1:
                raise CheckpointError(f"axis formula {text!r}: lengths of {', '.join(unknown)} are ambiguous", fix=f"give all but one, as in {unknown[0]}=8")
        self._order = [names.index(name) for name in others]

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim != len(self.left):
            raise CheckpointError(f"axis formula {self.text!r} does not fit the shape {tuple(tensor.shape)}")
        lengths: dict[str, int] = {}
        for group, side in zip(self.left, tensor.shape, strict=True):
            known = math.prod(self.sizes[name] for name in group if name in self.sizes)
            unknown = [name for name in group if name not in self.sizes]
            if (unknown and (known == 0 or side % known)) or (not unknown and side != known):
                raise CheckpointError(f"axis formula {self.text!r} with {self.sizes} does not fit the shape {tuple(tensor.shape)}")
            lengths |= {name: self.sizes.get(name, side // max(known, 1)) for name in group}
        flat = tensor.reshape([lengths[name] for group in self.left for name in group]).permute(self._order)
        return flat.reshape([math.prod(lengths[name] for name in group) for group in self.right])

    def inverse(self) -> AxisFormula:
        left, _, right = self.text.partition("->")
        return AxisFormula(f"{right.strip()} -> {left.strip()}", **self.sizes)


def _axes(text: str) -> list[list[str]]:
    groups: list[list[str]] = []
    for token in re.findall(r"\([^()]*\)|\S+", text):
        names = token.strip("()").split()
        groups.append([name for name in names if name != "1"])
    return groups


def repr_call(name: str, *arguments: Any, **named: Any) -> str:
    """``Name('a', b=1)`` for the ``repr`` of map steps."""
    parts = [repr(argument) for argument in arguments] + [f"{key}={value!r}" for key, value in named.items() if value is not None]
    return f"{name}({', '.join(parts)})"


# -- layouts by their keys ---------------------------------------------------------------------------------------------------


def fits(keys: Iterable[str], spec: WeightsSpec) -> bool:
    """Whether each of the spec's ``detect`` expressions is found in at least one key."""
    keys = list(keys)
    return bool(spec.detect) and all(any(re.search(pattern, key) for key in keys) for pattern in spec.detect)


def detect_layout(keys: Iterable[str], layouts: Mapping[str, WeightsSpec]) -> str:
    """The name of the one layout that fits ``keys``; a single layout without ``detect`` fits everything.

    Raises:
        CheckpointError: None or several fit.

    >>> detect_layout(["encoder.a"], {"mine": WeightsSpec(name="mine", detect=(r"^encoder\\.",))})
    'mine'
    """
    keys = list(keys)
    if len(layouts) == 1:
        ((name, only),) = layouts.items()
        if not only.detect:
            return name
    found = [name for name, spec in layouts.items() if fits(keys, spec)]
    if len(found) == 1:
        return found[0]
    sample = ", ".join(keys[:4]) + (f", ... ({len(keys)} keys)" if len(keys) > 4 else "")
    if found:
        raise CheckpointError(
            f"the checkpoint fits several layouts: {', '.join(found)}", tried=[f"keys: {sample}"], fix="make the detect patterns of these layouts exclusive"
        )
    tried = [
        f"{name}: no key matches {next((p for p in spec.detect if not any(re.search(p, k) for k in keys)), '(nothing to detect by)')!r}"
        for name, spec in layouts.items()
    ]
    raise CheckpointError("the checkpoint has none of the known layouts", tried=[*tried, f"keys: {sample}"], fix="zoo load-check PATH says which model fits")
