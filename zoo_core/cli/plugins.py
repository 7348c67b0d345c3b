"""``zoo plugins`` and ``zoo doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
HELP = """Installed plugins and their state.

States: found (usable), loaded, blocked (switched off by you), incompatible (other plugin API), broken (with the reason).
Settings file: $ZOO_CONFIG or ~/.config/zoo/config.json, {"plugins": {"only": [...], "disable": [...]}, "prefer": {"models/NAME": "OWNER"}};
ZOO_PLUGINS=a,b and ZOO_PLUGINS_DISABLE=c go before it.
"""
plugins_app = typer.Typer(help=HELP, invoke_without_command=True, add_completion=False)


@plugins_app.callback()
def plugins(
    ctx: typer.Context, as_json: Json = False, provides: Annotated[bool, typer.Option("--provides", help="Also what each plugin provides.")] = False
) -> None:
    if ctx.invoked_subcommand is None:
        from zoo_core.cli.views import show_plugins

        raise typer.Exit(show_plugins(as_json=as_json, provides=provides))


@plugins_app.command()
def enable(name: Annotated[str, typer.Argument(help="Plugin or distribution.")]) -> None:
    """Switch a plugin on again."""
    _switch(name, True)


@plugins_app.command()
def disable(name: Annotated[str, typer.Argument(help="Plugin or distribution.")]) -> None:
    """Switch a plugin off: its code is never imported and its models are not offered."""
    _switch(name, False)


def _switch(name: str, enabled: bool) -> None:
    from zoo_core import discovery, settings
    from zoo_core.errors import UnknownNameError
    from zoo_core.names import near_misses

    found = discovery.discover(settings.Settings())
    names = {plugin.name: plugin.name for plugin in found.values()} | {plugin.distribution: plugin.name for plugin in found.values()}
    if name not in names and not enabled:
        close = near_misses(name, names)
        raise UnknownNameError(
            f"plugin {name!r} is not installed", tried=[f"did you mean: {', '.join(close)}"] if close else [], fix="zoo plugins", suggestions=close
        )
    plugin = names.get(name, name)
    path = settings.change(plugin, enabled=enabled)
    print(f"{plugin} is {'on' if enabled else 'off'} ({path})")
    refused = settings.read_settings().blocked(plugin, found[plugin].distribution if plugin in found else plugin)
    if enabled and refused:
        print(f"but it is still {refused}")


@plugins_app.command()
def prefer(
    name: Annotated[str, typer.Argument(help="KIND/NAME that two distributions claim, e.g. models/some-model.")],
    owner: Annotated[str, typer.Argument(help="Plugin or distribution that shall have it.")],
) -> None:
    """Decide who owns a name that several plugins claim."""
    from zoo_core import settings
    from zoo_core.errors import InputError, UnknownNameError
    from zoo_core.registry import get_registry

    kind, slash, short = name.partition("/")
    if not slash or not short:
        raise InputError(f"{name!r} is not of the form KIND/NAME", fix="for example models/some-model")
    registry = get_registry()
    contested = registry.conflicts(kind).get(name, [])
    owners = {plugin.name: plugin.distribution for plugin in registry.plugins().values()}
    if contested and owners.get(owner, owner) not in contested:
        raise UnknownNameError(f"{owner!r} does not claim {name}", fix=f"one of {', '.join(contested)}", suggestions=contested)
    print(f"{name} belongs to {owners.get(owner, owner)} ({settings.prefer(name, owners.get(owner, owner))})")


def doctor(as_json: Json = False, quick: Annotated[bool, typer.Option("--quick", help="Do not import any plugin.")] = False) -> None:
    """Look for what is wrong with this installation; exit code 1 when something is."""
    from zoo_core.cli.common import print_json, style
    from zoo_core.cli.doctor import examine

    marks = {"ok": "32", "warn": "33", "fail": "31"}
    findings = []
    for finding in examine(activate=not quick):
        findings.append(finding)
        if not as_json:
            print(f"{style(f'{finding.level:<4}', marks[finding.level])}  {finding.what}")
            if finding.hint:
                print(f"      fix: {finding.hint}")
    if as_json:
        print_json([finding._asdict() for finding in findings])
    raise typer.Exit(1 if any(finding.level == "fail" for finding in findings) else 0)
