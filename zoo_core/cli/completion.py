"""Completion of the command line: ``zoo completion bash|zsh|fish`` prints what the shell needs; the shell then asks ``zoo __complete WORDS...``."""

from __future__ import annotations

from zoo_core.cli.commands import COMMANDS
from zoo_core.cli.fast import OPTIONS

MODEL_COMMANDS = ("info", "run", "fit", "pull", "load", "pack", "serve", "eval")
PLUGIN_COMMANDS = ("parity", "claims", "conformance")

SCRIPTS = {
    "bash": """_zoo() {
    local IFS=$'\\n'
    COMPREPLY=($(zoo __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _zoo zoo
""",
    "zsh": """#compdef zoo
_zoo() {
    local -a found
    found=("${(@f)$(zoo __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    [[ -n "$found[1]" ]] && compadd -- $found || _files
}
compdef _zoo zoo
""",
    "fish": """complete -c zoo -f -a '(zoo __complete (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
""",
}


def complete(words: list[str]) -> list[str]:
    """Candidates for the last of ``words`` (what stands after ``zoo``), sorted.

    >>> complete(["lis"])
    ['list']
    """
    words = words or [""]
    last = words[-1]
    if len(words) == 1:
        return sorted(name for name in COMMANDS if name.startswith(last))
    command, before = words[0], words[-2]
    if last.startswith("-"):
        return sorted(f"--{name}" for name in OPTIONS.get(command, {}) if f"--{name}".startswith(last))
    from zoo_core.registry import get_registry

    registry = get_registry()
    cards = registry.models()
    pool: set[str] = set()
    if before == "--task":
        pool = {card["task"] for card in cards.values()}
    elif before == "--plugin" or (len(words) == 2 and command in PLUGIN_COMMANDS):
        pool = set(registry.plugins()) | {card["plugin"] for card in cards.values()}
    elif before == "--status":
        pool = {"embedded", "published", "config-only"}
    elif command in MODEL_COMMANDS and len(words) == 2:
        pool = {*cards, *(alias for card in cards.values() for alias in card.get("aliases", ()))}
    elif command == "eval" and len(words) == 3:
        pool = set(registry.names("evaluators"))
    elif command == "train" and len(words) == 2:
        pool = set(registry.names("recipes"))
    elif command == "bench" and len(words) == 2:
        pool = set(registry.names("benchmarks"))
    return sorted(name for name in pool if name.startswith(last))
