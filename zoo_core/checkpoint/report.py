"""The comparison of a checkpoint with a module, and what it most likely means."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from zoo_core.errors import CheckpointMismatchError

Shape = tuple[int, ...]


@dataclass(slots=True)
class MatchReport:
    """What :func:`~zoo_core.checkpoint.load_into` found and did.

    Attributes:
        component: Name of the part of the model.
        matched: Keys that were loaded.
        missing: Keys of the module that the checkpoint lacks.
        unexpected: Keys of the checkpoint that the module lacks.
        mismatched: (key, shape or number format in the module, the same in the checkpoint).
        tied: Key -> the key it shares its tensor with (filled from there).
        cast: ``"bfloat16->float32"`` -> number of tensors.
        bytes_mapped: Bytes that were assigned without a copy.
        bytes_copied: Bytes of new tensors.
        not_finite: Tensors with NaN or infinity (when scanned).
    """

    component: str = ""
    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, str, str]] = field(default_factory=list)
    tied: dict[str, str] = field(default_factory=dict)
    cast: dict[str, int] = field(default_factory=dict)
    bytes_mapped: int = 0
    bytes_copied: int = 0
    not_finite: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched)

    def lines(self, limit: int = 12) -> list[str]:
        """The differences, grouped by module prefix."""
        rows = [f"shape of {key}: model {ours}, checkpoint {theirs}" for key, ours, theirs in self.mismatched[:limit]]
        if len(self.mismatched) > limit:
            rows.append(f"... and {len(self.mismatched) - limit} more shapes")
        for title, keys in (("missing in the checkpoint", self.missing), ("unexpected in the checkpoint", self.unexpected)):
            groups = grouped(keys)
            rows += [f"{title}: {_group_text(prefix, names)}" for prefix, names in list(groups.items())[:limit]]
            if len(groups) > limit:
                rows.append(f"... and {len(groups) - limit} more groups {title.split()[0]}")
        return rows

    def guess(self) -> str:
        """The likeliest cause, or ""."""
        missing, unexpected = set(self.missing), set(self.unexpected)
        for key in self.unexpected[:50]:
            head, _, rest = key.partition(".")
            if rest in missing and _share(name.removeprefix(head + ".") in missing for name in unexpected) > 0.9:
                example = f"KeyMap([Rename({head + '.{key*}'!r}, {'{key*}'!r})])"
                return f"the checkpoint's keys start with {head + '.'!r} (saved from a wrapper): {example}"
        prefixes = Counter(name[: -len(key) - 1] for key in list(unexpected)[:50] for name in missing if name.endswith("." + key))
        if prefixes and (prefix := prefixes.most_common(1)[0][0]) and _share(f"{prefix}.{name}" in missing for name in unexpected) > 0.9:
            return f"the checkpoint holds only the part {prefix!r} of this model (its keys lack that prefix): load it into that part"
        if not self.matched and unexpected:
            return (
                "no key fits: the checkpoint has another layout (a key map is needed) or belongs to another model; `zoo load-check FILE` says which model fits"
            )
        if self.mismatched and not missing and not unexpected:
            flipped = sum(1 for _, ours, theirs in self.mismatched if _numbers(ours) == _numbers(theirs)[::-1])
            squeezed = sum(1 for _, ours, theirs in self.mismatched if [n for n in _numbers(ours) if n != 1] == [n for n in _numbers(theirs) if n != 1])
            if flipped == len(self.mismatched):
                return "the shapes are transposed: the checkpoint stores matrices the other way round (another layout)"
            if squeezed == len(self.mismatched):
                return "the shapes differ by axes of length 1 (linear layer against 1x1 convolution): another layout"
            return "all keys fit but shapes do not: another variant or size of this model; load it with the config.json that lies beside the weights"
        if unexpected and not missing and not self.mismatched:
            return "the checkpoint holds more than this model: training state (EMA, optimiser, discriminator) or a larger variant"
        if missing and not unexpected:
            return "the checkpoint is incomplete: a shard is not listed, or it was saved from a smaller variant"
        return "another variant of this model, or another layout"

    def text(self) -> str:
        return "\n".join(
            [f"{len(self.matched)} fit, {len(self.missing)} missing, {len(self.unexpected)} unexpected, {len(self.mismatched)} of another shape", *self.lines()]
        )

    def error(self, where: str) -> CheckpointMismatchError:
        """The error to raise; its ``fields['report']`` is this report."""
        name = f" ({self.component})" if self.component else ""
        counts = f"{len(self.missing)} missing, {len(self.unexpected)} unexpected, {len(self.mismatched)} of another shape"
        what = f"checkpoint {where} does not fit the model{name}: {counts}"
        return CheckpointMismatchError(what, tried=self.lines(), fix=self.guess() or None, report=self)


def _share(tests: Iterable[bool]) -> float:
    """The part of ``tests`` that is true."""
    results = list(tests)
    return sum(results) / max(len(results), 1)


def grouped(keys: Iterable[str]) -> dict[str, list[str]]:
    """Keys by module prefix: as coarse as possible, but at most about twelve groups.

    >>> list(grouped(["blocks.0.a.weight", "blocks.0.b.weight", "head.weight"]))
    ['blocks', 'head']
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        groups[key.split(".", 1)[0] if "." in key else key].append(key)
    if len(groups) == 1:
        (only,) = groups.values()
        prefix = os.path.commonprefix(only).rpartition(".")[0]  # noqa: RUF071 (keys, not paths)
        deeper: dict[str, list[str]] = defaultdict(list)
        for key in only:
            rest = key[len(prefix) + 1 :] if prefix else key
            deeper[f"{prefix}.{rest.split('.', 1)[0]}" if prefix else rest.split(".", 1)[0]].append(key)
        if 1 < len(deeper) <= 12 and any(len(names) > 1 for names in deeper.values()):
            return dict(deeper)
    return dict(groups)


def _group_text(prefix: str, names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    tails = [name[len(prefix) + 1 :] for name in names[:3]]
    return f"{prefix}.* ({len(names)}: {', '.join(tails)}{', ...' if len(names) > 3 else ''})"


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.strip("()[]").replace(",", " ").split() if part.isdigit()]
