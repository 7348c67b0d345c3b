"""Synthetic multi-passkey text (DuoAttention, section 2.2): several word sequences hidden in a long text, all asked for at the end.

Only the question-answer tail is labelled, so the objective looks where distant context matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from zoo_core.errors import InputError

WORDS = [
    "alpha",
    "bravo",
    "charlie",
    "delta",
    "echo",
    "foxtrot",
    "golf",
    "hotel",
    "india",
    "juliett",
    "kilo",
    "lima",
    "mike",
    "november",
    "oscar",
    "papa",
    "quebec",
    "romeo",
    "sierra",
    "tango",
    "uniform",
    "victor",
    "whiskey",
    "xray",
    "yankee",
    "zulu",
]
ORDINALS = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
    "thirteenth",
    "fourteenth",
    "fifteenth",
    "sixteenth",
    "seventeenth",
    "eighteenth",
    "nineteenth",
    "twentieth",
]
# The published strings, spelling included: patterns learnt with other strings would not be comparable.
NEEDLE = "Remeber this sequence of words, it's the {ordinal} passkey to the vault: "
QUESTION = "Based on the content of the book, what is the {ordinal} passkey to the vault?\nPasskey: "
OPENING = "<|im_start|> This is a very long story book: <book> "
CLOSING = " </book>.\n\n"
SEPARATOR = "\n\n"


@dataclass(frozen=True)
class PasskeyItem:
    """``input_ids`` and ``labels`` [tokens] int64; labels are -100 before the tail and are not shifted."""

    input_ids: torch.Tensor
    labels: torch.Tensor


class MultiPasskeyData:
    """Items of growing length over one haystack.

    Args:
        texts: Haystack pieces, concatenated until long enough.
        tokenizer: ``encode(text, add_special_tokens=...)`` and ``decode(ids)``.
        passkey_length: Words per passkey.
        num_passkeys: Passkeys per item (at most 20).
        context_length_min, context_length_max: Haystack tokens of the shortest and the longest item (needles and tail come on top).
        intervals: Number of items.
        depth_intervals: Possible depths, evenly spaced from ``min_depth`` to ``max_depth``.
        buffer_size: Haystack tokens given up for the other parts.
        generator: Source of passkeys and depths; None uses torch's global generator (as the published runs did).
        alphabet: ``"words"`` (published), ``"digits"`` (passkeys of ``passkey_length`` digits) or ``"mixed"`` (one of the two per item; ours).
        labelled: ``"tail"`` (published: questions and passkeys) or ``"answers"`` (passkeys and the token before each, where retrieval shows; ours).
    """

    def __init__(
        self,
        texts: Iterable[str],
        tokenizer: Any,
        *,
        passkey_length: int = 32,
        num_passkeys: int = 10,
        context_length_min: int = 1000,
        context_length_max: int = 32000,
        intervals: int = 50,
        depth_intervals: int = 1000,
        min_depth: float = 0.05,
        max_depth: float = 0.95,
        buffer_size: int = 300,
        generator: torch.Generator | None = None,
        alphabet: str = "words",
        labelled: str = "tail",
    ) -> None:
        if not 1 <= num_passkeys <= min(len(ORDINALS), depth_intervals):
            raise InputError(f"multi-passkey data: num_passkeys={num_passkeys}", fix=f"1 to {len(ORDINALS)}")
        self.tokenizer, self.passkey_length, self.num_passkeys = tokenizer, passkey_length, num_passkeys
        self.generator, self.alphabet, self.labelled = generator, alphabet, labelled
        self.context_lengths = torch.linspace(context_length_min, context_length_max, intervals, dtype=torch.int)
        self.depths = torch.linspace(min_depth, max_depth, depth_intervals)
        haystack = ""
        for text in texts:
            if len(tokenizer.encode(haystack)) >= context_length_max:
                break
            haystack += text
        ids = self._encode(haystack)
        if len(ids) > context_length_max:
            ids = self._encode(tokenizer.decode(ids[:context_length_max]))
        self.needles = [self._encode(NEEDLE.format(ordinal=o)) for o in ORDINALS[:num_passkeys]]
        self.questions = [self._encode(QUESTION.format(ordinal=o)) for o in ORDINALS[:num_passkeys]]
        self.separator = self._encode(SEPARATOR)
        self.opening = list(tokenizer.encode(OPENING, add_special_tokens=True))
        self.closing = self._encode(CLOSING)
        passkey = len(self._passkey("words" if alphabet == "mixed" else alphabet))
        others = len(self.opening) + len(self.closing)
        others += (2 * len(self.separator) + len(self.needles[0]) + len(self.questions[0]) + 2 * passkey) * num_passkeys
        room = context_length_max - buffer_size
        if len(ids) + others > room:
            ids = ids[: room - others]
        if len(ids) < 16:
            raise InputError(
                f"multi-passkey data: {context_length_max} tokens leave no room for {num_passkeys} passkeys of {passkey_length} words",
                fix="larger context_length_max, fewer or shorter passkeys, or a smaller buffer_size",
            )
        self.haystack = ids

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _passkey(self, alphabet: str) -> list[int]:
        words = alphabet == "words"
        picks = torch.randint(0, len(WORDS) if words else 10, (self.passkey_length,), generator=self.generator)
        return self._encode(" ".join(WORDS[i] for i in picks.tolist()) if words else "".join(map(str, picks.tolist())))

    def __len__(self) -> int:
        return len(self.context_lengths)

    def item(self, index: int) -> PasskeyItem:
        """Item ``index`` with fresh passkeys and depths; its length is a multiple of 16."""
        picks = torch.randperm(len(self.depths), generator=self.generator)[: self.num_passkeys]
        depths = self.depths[picks].sort().values
        alphabet = self.alphabet if self.alphabet != "mixed" else ("words", "digits")[int(torch.randint(0, 2, (), generator=self.generator))]
        keys = [self._passkey(alphabet) for _ in range(self.num_passkeys)]
        hay = self.haystack[: int(self.context_lengths[index])]
        context, last = list(self.opening), 0
        for depth, needle, key in zip(depths, self.needles, keys, strict=True):
            point = int(len(hay) * depth)
            context += [*hay[last:point], *self.separator, *needle, *key, *self.separator]
            last = point
        context += hay[last:]
        tail = [token for question, key in zip(self.questions, keys, strict=True) for token in (*question, *key, *self.separator)]
        padding = 16 - (len(context) + len(tail) + len(self.closing)) % 16  # 16 when it already fits: kept, so that items equal the published ones
        context += self.haystack[-padding:]
        context += self.closing
        labels = list(tail)
        if self.labelled == "answers":
            labels = []
            for question, key in zip(self.questions, keys, strict=True):
                labels += [*[-100] * (len(question) - 1), question[-1], *key, *[-100] * len(self.separator)]
        return PasskeyItem(torch.tensor(context + tail), torch.tensor([-100] * len(context) + labels))


class PasskeyStream:
    """Endless resumable stream of items for the trainer: a fresh shuffled order every epoch, everything derived from (seed, position).

    Args:
        make: ``make(generator) -> MultiPasskeyData``; called once.
        seed: Seed.
    """

    def __init__(self, data: MultiPasskeyData, seed: int) -> None:
        self.data, self.seed, self.position = data, seed, 0

    def __iter__(self) -> Iterator[PasskeyItem]:
        while True:
            epoch, place = divmod(self.position, len(self.data))
            order = torch.randperm(len(self.data), generator=torch.Generator().manual_seed(self.seed * 1_000_003 + epoch))
            self.data.generator = torch.Generator().manual_seed(self.seed * 7_919 + self.position)
            self.position += 1
            yield self.data.item(int(order[place]))

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = int(state["position"])


def pieces(text: str, size: int = 4000) -> Sequence[str]:
    """Cut one long text into haystack pieces."""
    return [text[i : i + size] for i in range(0, len(text), size)]
