"""What programs ask the catalogue: :func:`list_models`, :func:`info`, :func:`search`, :func:`fit` (only the last imports torch, to see accelerators)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from zoo_core.errors import InputError
from zoo_core.names import near_misses
from zoo_core.registry import get_registry

if TYPE_CHECKING:
    from zoo_core.devices import Estimate

UNITS = {"": 1, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
STATUSES = ("embedded", "published", "config-only")


def quantity(value: int | float | str, what: str = "size") -> float:
    """``"1.6B"``, ``"8GiB"`` or a number.

    >>> quantity("1.6B"), quantity("2GiB")
    (1600000000.0, 2147483648.0)
    """
    if isinstance(value, (int, float)):
        return float(value)
    text = value.strip().lower().replace(" ", "")
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = text[len(digits) :]
    try:
        if unit not in UNITS:
            raise ValueError
        return float(digits) * UNITS[unit]
    except ValueError:
        raise InputError(f"{what} {value!r} is not a number with a unit", fix="write e.g. 600M, 1.6B, 8GB or 8GiB") from None


def list_models(
    *, task: str | None = None, licence: str | None = None, max_params: int | float | str | None = None, max_memory: int | float | str | None = None,
    plugin: str | None = None, status: str | None = None, commercial: bool | None = None, tag: str | None = None, installed: bool | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Cards of the models that satisfy every filter, by name; models of plugins that are not installed have ``installed: False``.

    Args:
        task: Exact task name.
        licence: Part of the licence's name or SPDX identifier, any case.
        max_params, max_memory: Upper limits, e.g. ``"1B"``, ``"8GB"`` (memory of the weights).  Models that do not say are left out.
        commercial: Whether commercial use is allowed.  Models that do not say are left out.

    Raises:
        InputError: Unknown task, status or plugin, or a malformed size.
    """
    cards = get_registry().models(installed=installed)
    _known("task", task, {card["task"] for card in cards.values()} | set(_tasks()))
    _known("status", status, STATUSES)
    _known("plugin", plugin, {card["plugin"] for card in cards.values()} | set(get_registry().plugins()))
    params = None if max_params is None else quantity(max_params, "max_params")
    room = None if max_memory is None else quantity(max_memory, "max_memory")
    return [
        card
        for card in cards.values()
        if (task is None or card["task"] == task)
        and (licence is None or licence.lower() in licence_text(card).lower())
        and (params is None or 0 < (card.get("parameters") or 0) <= params)
        and (room is None or 0 < weights_bytes(card) <= room)
        and (plugin is None or card["plugin"] == plugin)
        and (status is None or card["status"] == status)
        and (commercial is None or (card.get("licence") or {}).get("commercial") is commercial)
        and (tag is None or tag in (card.get("tags") or ()))
    ]


def _tasks() -> Iterable[str]:
    return ("text-to-image", "class-to-image", "image-autoencoder", "causal-lm", "vision-language", "semantic-segmentation", "motion-prediction")


def _known(what: str, value: str | None, known: Iterable[str]) -> None:
    known = sorted(known)
    if value is not None and value not in known:
        close = near_misses(value, known)
        raise InputError(
            f"{what} {value!r} is unknown", tried=[f"did you mean: {', '.join(close)}"] if close else [], fix=f"one of {', '.join(known)}", suggestions=close
        )


def licence_text(card: Mapping[str, Any]) -> str:
    """Name and SPDX identifier of the weights' licence."""
    licence = card.get("licence") or {}
    spdx, name = str(licence.get("spdx") or ""), str(licence.get("name") or "")
    return name if spdx in name else f"{spdx} {name}".strip()


def weights_bytes(card: Mapping[str, Any]) -> int:
    """Bytes of the weights in their published precision; 0 when the card does not say."""
    return int((card.get("memory") or {}).get("weights_bytes") or 0)


def info(name: str) -> dict[str, Any]:
    """The card of one model (``name`` or ``name@variant``), installed or not; ``install`` holds the command when it is not.

    Raises:
        UnknownModelError: With near misses.
    """
    from zoo_core.catalog import install_command

    card = dict(get_registry().card(name))
    if not card["installed"]:
        card["install"] = install_command(card["plugin"], card["distribution"])
    return card


def search(words: str) -> list[dict[str, Any]]:
    """Cards that hold every word (name, alias, summary, task, tag, paper, licence, plugin), names first."""
    wanted = words.lower().split()

    def text(card: Mapping[str, Any]) -> str:
        paper = card.get("paper") or {}
        parts = [card["name"], *card.get("aliases", ()), card.get("summary", ""), card["task"], *card.get("tags", ()), card["plugin"], licence_text(card)]
        return " ".join([*map(str, parts), str(paper.get("title", "")), str(paper.get("arxiv", "")), str(paper.get("venue", ""))]).lower()

    found = [card for card in get_registry().models().values() if all(word in text(card) for word in wanted)]
    return sorted(found, key=lambda card: (not any(word in card["name"] for word in wanted), card["name"]))


def fit(
    name: str, *, height: int | None = None, width: int | None = None, batch: int = 1, length: int | None = None, dtype: str | None = None
) -> dict[str, Any]:
    """Whether it fits this machine: ``{"estimate", "places", "fits", "alternatives"}``; see :mod:`zoo_core.devices`."""
    from zoo_core.devices import alternatives, estimate, judge, places

    card = get_registry().card(name)
    wanted: Estimate = estimate(card, height=height, width=width, batch=batch, length=length, dtype=dtype)
    where = places()
    verdicts = judge(wanted, where)
    best = max(verdict.available_bytes for verdict in verdicts)
    return {
        "name": card["name"],
        "estimate": wanted.to_dict(),
        "places": [{**place, "fits": verdict.fits} for place, verdict in zip(where, verdicts)],
        "fits": any(verdict.fits for verdict in verdicts),
        "alternatives": []
        if any(v.fits for v in verdicts)
        else [{"change": label, **smaller.to_dict()} for label, smaller in alternatives(card, wanted, best)],
    }
