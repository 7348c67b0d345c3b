"""The typer side of ``zoo``: a group that imports a command when it is called."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from zoo_core.cli.commands import COMMANDS
from zoo_core.errors import UnknownNameError
from zoo_core.names import near_misses

HELP = "A model zoo for efficient-AI papers.  Start with: zoo list, zoo info NAME, zoo run NAME ..."


class LazyGroup(TyperGroup):
    """Commands come from :data:`COMMANDS`; listing them for ``--help`` imports none of them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        if (
            ctx is not None
            and ("--help" in sys.argv[1:2] or not sys.argv[1:])
            and ctx.info_name == "zoo"
            and ctx.parent is None
            and ctx.invoked_subcommand is None
        ):
            return self._stub(cmd_name)
        return load_command(cmd_name)

    def _stub(self, name: str) -> Any:
        stub = typer.Typer(add_completion=False)
        stub.command(name, help=COMMANDS[name][1])(lambda: None)
        return get_command(stub)


def load_command(name: str) -> Any:
    """The click command of one name."""
    from zoo_core.specs import resolve

    target, text = COMMANDS[name]
    try:
        value = resolve(target)
    except (ModuleNotFoundError, AttributeError) as error:
        raise UnknownNameError(f"the command {name!r} is not part of this installation ({error})", fix="pip install --upgrade zoo-core") from error
    if isinstance(value, typer.Typer):
        command = get_command(value)
    else:
        single = typer.Typer(add_completion=False)
        single.command(name, help=value.__doc__ or text)(value)
        command = get_command(single)
    command.name = name
    return command


app = typer.Typer(cls=LazyGroup, name="zoo", help=HELP, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def root(version: bool = typer.Option(False, "--version", "-V", help="Print the version.")) -> None:
    if version:
        from zoo_core import __version__

        typer.echo(f"zoo {__version__}")
        raise typer.Exit()


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        return plugin_command(arguments)
    try:
        result = get_command(app)(args=arguments, prog_name="zoo", standalone_mode=False)
    except Exception as error:
        show = getattr(error, "show", None)  # click's own: usage, bad parameter, file
        if callable(show):
            show()
            return int(getattr(error, "exit_code", 2))
        if type(error).__name__ == "Abort":
            raise KeyboardInterrupt from error
        if type(error).__name__ == "Exit":
            return int(getattr(error, "exit_code", 0))
        raise
    return result if isinstance(result, int) else 0


def plugin_command(arguments: list[str]) -> int:
    """``zoo PLUGIN COMMAND ...``: a command that a plugin brings."""
    from zoo_core.registry import get_registry
    from zoo_core.specs import CommandSpec, resolve

    registry = get_registry()
    owner = arguments[0]
    plugin = registry.plugins().get(owner)
    provided = list(plugin.fragment.get("provides", {}).get("commands", ())) if plugin is not None else []
    if not provided:
        close = near_misses(owner, [*COMMANDS, *(name for name, p in registry.plugins().items() if p.fragment.get("provides", {}).get("commands"))])
        raise UnknownNameError(
            f"zoo has no command {owner!r}", tried=[f"did you mean: {', '.join(close)}"] if close else [], fix="zoo --help", suggestions=close
        )
    if len(arguments) < 2 or arguments[1] in ("--help", "-h"):
        typer.echo(f"commands of {owner}: {', '.join(provided)}")
        return 0
    spec = registry.get("commands", arguments[1], plugin=owner)
    assert isinstance(spec, CommandSpec)
    return int(resolve(spec.run)(arguments[2:]) or 0)
