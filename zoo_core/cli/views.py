"""What ``zoo list``, ``info``, ``search`` and ``plugins`` print.  Neither typer nor torch is imported here."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from zoo_core import api
from zoo_core.cli.common import colour, number, print_json, size, style, table
from zoo_core.registry import get_registry


def _rows(cards: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [
            card["name"],
            card["task"],
            number(card.get("parameters")),
            size(api.weights_bytes(card)),
            card["status"],
            card["plugin"] + ("" if card["installed"] else " (not installed)"),
            shortened(api.licence_text(card) or "-", 28),
            card.get("summary", ""),
        ]
        for card in cards
    ]


def shortened(text: str, length: int) -> str:
    """At most ``length`` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


COLUMNS = ("model", "task", "parameters", "weights", "status", "plugin", "licence", "summary")


def _public(card: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in card.items() if key not in ("config", "build", "config_class")}


def _show(cards: list[dict[str, Any]], as_json: bool, nothing: str) -> int:
    if as_json:
        print_json([_public(card) for card in cards])
    elif cards:
        table(COLUMNS, _rows(cards), right=(2, 3))
        if sys.stdout.isatty():
            installed = sum(card["installed"] for card in cards)
            print(style(f"{len(cards)} models, {installed} of installed plugins; zoo info NAME tells more", "2"))
    else:
        print(nothing, file=sys.stderr)
    warn_broken()
    return 0


def warn_broken() -> None:
    """One line on standard error about plugins that cannot be used and names that are contested."""
    registry = get_registry()
    bad = [plugin.name for plugin in registry.plugins().values() if plugin.state in ("broken", "incompatible")]
    if bad:
        print(f"warning: {', '.join(bad)}: cannot be used (zoo plugins tells why)", file=sys.stderr)
    contested = registry.conflicts("models")
    if contested:
        print(f"warning: {', '.join(contested)}: claimed by two distributions (zoo doctor tells which)", file=sys.stderr)


def show_list(*, as_json: bool = False, commercial: bool = False, installed: bool = False, **filters: Any) -> int:
    """``zoo list``."""
    cards = api.list_models(commercial=True if commercial else None, installed=True if installed else None, **filters)
    return _show(cards, as_json, "no model satisfies these filters")


def show_search(words: str, *, as_json: bool = False) -> int:
    """``zoo search WORDS``; exit code 1 when nothing is found."""
    cards = api.search(words)
    _show(cards, as_json, f"nothing matches {words!r}")
    return 0 if cards else 1


def show_info(name: str, *, as_json: bool = False) -> int:
    """``zoo info NAME``."""
    card = api.info(name)
    if as_json:
        print_json(card)
        return 0
    print(style(card["name"], "1") + (f"@{card['variant']}" if card.get("variant") else "") + f"  {card.get('summary', '')}")
    for label, value in _facts(card):
        if value:
            print(f"  {label + ':':<14}{value}")
    return 0


def _facts(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    paper, licence = card.get("paper") or {}, card.get("licence") or {}
    commercial = {True: "commercial use allowed", False: "non-commercial"}.get(licence.get("commercial"), "commercial use: not stated")  # type: ignore[arg-type]
    facts = [
        ("task", card["task"]),
        (
            "status",
            {"embedded": "embedded (trained weights ship with the plugin)", "config-only": "config-only (no weights)"}.get(card["status"], card["status"]),
        ),
        ("aliases", ", ".join(card.get("aliases") or ())),
        ("variants", ", ".join(sorted(card.get("variants") or {}))),
        ("parameters", f"{card['parameters']:,}" if card.get("parameters") else ""),
        ("weights", size(api.weights_bytes(card)) if api.weights_bytes(card) else ""),
        ("precision", _pairs(card.get("precision"))),
        ("licence", f"{api.licence_text(card)} ({commercial})" + (f"  {licence['url']}" if licence.get("url") else "") if licence else "not stated"),
        ("paper", ", ".join(str(paper[key]) for key in ("title", "venue") if paper.get(key)) + (f" (arXiv {paper['arxiv']})" if paper.get("arxiv") else "")),
        ("plugin", f"{card['plugin']} ({card['distribution']})" + ("" if card["installed"] else ", not installed")),
        ("install", card.get("install", "")),
        ("defaults", _pairs(card.get("defaults"))),
        ("tags", ", ".join(card.get("tags") or ())),
        ("trained", _pairs(card.get("trained"))),
    ]
    for entry in card.get("weights") or ():
        pinned = entry.get("revision")
        facts.append(("source", f"{entry['source']}" + (f" at {pinned}" if pinned else "") + (f" [{entry['layout']}]" if entry.get("layout") else "")))
    return facts


def _pairs(data: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{key} {value}" for key, value in (data or {}).items())


def show_plugins(*, as_json: bool = False, provides: bool = False) -> int:
    """``zoo plugins``: state of every installed plugin; with ``provides``, what each gives."""
    from zoo_core.catalog import catalogue, first_party, install_command

    plugins = get_registry().plugins()
    if as_json:
        print_json([describe(plugin) for plugin in plugins.values()])
        return 0
    marks = {"broken": "31", "incompatible": "31", "blocked": "33"}
    rows = [
        [
            p.name,
            p.state,
            p.distribution,
            p.version,
            "this project" if first_party(p.distribution) else "third party",
            str(len(p.fragment.get("models", ()))),
            p.origin,
        ]
        for p in plugins.values()
    ]
    if rows:
        table(("plugin", "state", "distribution", "version", "by", "models", "installed from"), rows, right=(5,))
    else:
        print("no plugin is installed")
    for plugin in plugins.values():
        if plugin.reason:
            print(style(f"{plugin.name}: {plugin.reason}", marks.get(plugin.state, "0")) if colour() else f"{plugin.name}: {plugin.reason}")
        if provides:
            for kind, names in plugin.fragment.get("provides", {}).items():
                print(f"{plugin.name}: {kind}: {', '.join(names)}")
    for name, fragment in catalogue().items():
        if name not in plugins:
            print(f"not installed: {name}: {install_command(name, fragment['distribution'])}")
    return 0


def describe(plugin: Any) -> dict[str, Any]:
    """A plugin as data."""
    return {
        "name": plugin.name, "state": plugin.state, "reason": plugin.reason, "distribution": plugin.distribution, "version": plugin.version,
        "module": plugin.module, "origin": plugin.origin,
        "models": list(plugin.fragment.get("models", ())), "provides": plugin.fragment.get("provides", {}), "remarks": plugin.remarks,
    }  # fmt: skip
