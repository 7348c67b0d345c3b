"""Captions of emoji: names, keywords, style words, colour words and filler, as people type them."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

STYLE_WORDS: dict[str, tuple[str, ...]] = {
    "google": ("in google style", "google style", "google emoji"),
    "twitter": ("in twitter style", "twitter style", "twitter emoji"),
    "microsoft": ("in fluent style", "in glossy style", "in 3d style"),
    "flat": ("in microsoft style", "in microsoft flat style", "flat"),
    "emojione": ("in emojione style", "emojione style"),
}
FRAMES = ("{}", "{}", "{}", "{}", "an emoji of {}", "{} emoji", "a picture of {}", "a drawing of {}", "a photo of {}", "draw {}", "cute {}")
FOOD_FRAMES = ("a slice of {}", "a piece of {}", "a plate of {}", "some {}", "a bowl of {}")
PLAIN_GROUPS = ("animals", "food", "objects", "travel", "activities", "people")


def clean(text: str) -> str:
    """Lower case, no punctuation but hyphens and apostrophes, single spaces.

    >>> clean("Face: with “Tears” of Joy!")
    'face with tears of joy'
    """
    return re.sub(r"\s+", " ", re.sub(r"[^\w\s'-]", " ", text.lower())).strip()


def article(text: str) -> str:
    """``"apple"`` -> ``"an apple"``."""
    return f"{'an' if text[:1] in 'aeiou' else 'a'} {text}"


def caption(name: str, keywords: Sequence[str], group: str, style: str, default_style: str, draw: random.Random, colour: str | None = None) -> str:
    """One caption.  Pictures of ``default_style`` often carry no style words: a prompt without style then means that style.

    Args:
        name: CLDR name, without colour words when ``colour`` is given.
        colour: Colour word of a recoloured picture.
    """
    subject = clean(name)
    if colour is None and keywords and draw.random() < 0.18:
        others = [clean(word) for word in keywords if clean(word)]
        chosen = draw.sample(others, min(len(others), draw.choice((1, 2, 2, 3))))
        subject = " ".join([subject, *chosen]) if draw.random() < 0.5 else " ".join(chosen)
    if colour is not None:
        subject = f"{colour} {subject}"
    if group in PLAIN_GROUPS and draw.random() < 0.55:
        subject = article(subject)
        frame = draw.choice(FRAMES)
    elif group == "food" and draw.random() < 0.3:
        frame = draw.choice(FOOD_FRAMES)
    else:
        frame = draw.choice(FRAMES)
    text = frame.format(subject)
    if style != default_style or draw.random() < 0.3:
        words = draw.choice(STYLE_WORDS[style][:1] * 2 + STYLE_WORDS[style])
        text = f"{text} {words}" if draw.random() < 0.8 else f"{words.removeprefix('in ')} {text}"
    return text
