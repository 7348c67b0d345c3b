"""The commands that must answer at once, without typer.  What is not understood here returns None and goes to typer."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OPTIONS: dict[str, dict[str, type]] = {
    "list": {"task": str, "licence": str, "max-params": str, "max-memory": str, "plugin": str, "status": str, "tag": str, "commercial": bool, "installed": bool,
             "json": bool},
    "info": {"json": bool},
    "search": {"json": bool},
    "plugins": {"json": bool, "provides": bool},
}  # fmt: skip
"""Command -> option -> type (``bool``: a switch)."""
POSITIONAL = {"list": (0, 0), "info": (1, 1), "search": (1, 99), "plugins": (0, 0)}
"""Command -> least and most positional arguments."""


def run(arguments: list[str]) -> int | None:
    """Exit code, or None when typer should have it."""
    if arguments in (["--version"], ["-V"], ["version"]):
        from zoo_core import __version__

        print(f"zoo {__version__}")
        return 0
    if arguments and arguments[0] == "__complete":
        from zoo_core.cli.completion import complete

        print("\n".join(complete(arguments[1:])))
        return 0
    if not arguments or arguments[0] not in OPTIONS:
        return None
    command = arguments[0]
    parsed = parse(arguments[1:], OPTIONS[command])
    if parsed is None:
        return None
    options, positional = parsed
    least, most = POSITIONAL[command]
    if not least <= len(positional) <= most:
        return None
    from zoo_core.cli import views

    as_json = bool(options.pop("json", False))
    if command == "list":
        return views.show_list(as_json=as_json, **options)
    if command == "info":
        return views.show_info(positional[0], as_json=as_json)
    if command == "search":
        return views.show_search(" ".join(positional), as_json=as_json)
    return views.show_plugins(as_json=as_json, provides=bool(options.get("provides")))


def parse(arguments: list[str], known: dict[str, type]) -> tuple[dict[str, Any], list[str]] | None:
    """``--name value``, ``--name=value`` and ``--switch``; None when anything else stands there.

    >>> parse(["--task", "causal-lm", "--json"], {"task": str, "json": bool})
    ({'task': 'causal-lm', 'json': True}, [])
    """
    options: dict[str, Any] = {}
    positional: list[str] = []
    queue = iter(arguments)
    for argument in queue:
        if not argument.startswith("-"):
            positional.append(argument)
            continue
        name, equals, value = argument.removeprefix("--").partition("=")
        kind = known.get(name) if argument.startswith("--") else None
        if kind is None or (kind is bool and equals):
            return None
        if kind is bool:
            options[name.replace("-", "_")] = True
            continue
        if not equals:
            value = next(queue, "--")
            if value.startswith("--"):
                return None
        options[name.replace("-", "_")] = value
    return options, positional
