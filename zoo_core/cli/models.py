"""``zoo list``, ``info``, ``search``, ``fit``, ``load`` and ``completion``."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Name = Annotated[str, typer.Argument(help="name[@variant]")]


def list_command(
    task: Annotated[str | None, typer.Option(help="Only this task, e.g. text-to-image.")] = None,
    licence: Annotated[str | None, typer.Option(help="Part of the licence's name, e.g. apache.")] = None,
    max_params: Annotated[str | None, typer.Option(help="At most so many parameters, e.g. 1B.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="Weights of at most this size, e.g. 8GB.")] = None,
    plugin: Annotated[str | None, typer.Option(help="Only this plugin.")] = None,
    status: Annotated[str | None, typer.Option(help="embedded, published or config-only.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only this tag.")] = None,
    commercial: Annotated[bool, typer.Option("--commercial", help="Only weights that may be used commercially.")] = False,
    installed: Annotated[bool, typer.Option("--installed", help="Only models of installed plugins.")] = False,
    as_json: Json = False,
) -> None:
    """Models: what there is, installed or not."""
    from zoo_core.cli.views import show_list

    filters = {"task": task, "licence": licence, "max_params": max_params, "max_memory": max_memory, "plugin": plugin, "status": status, "tag": tag}
    raise typer.Exit(show_list(as_json=as_json, commercial=commercial, installed=installed, **filters))


def info_command(name: Name, as_json: Json = False) -> None:
    """Everything the catalogue says about one model."""
    from zoo_core.cli.views import show_info

    raise typer.Exit(show_info(name, as_json=as_json))


def search_command(words: Annotated[list[str], typer.Argument(help="Words; a model must have all of them.")], as_json: Json = False) -> None:
    """Models by words in name, summary, task, tags, paper, licence; exit code 1 when there is none."""
    from zoo_core.cli.views import show_search

    raise typer.Exit(show_search(" ".join(words), as_json=as_json))


def fit_command(
    name: Name,
    height: Annotated[int | None, typer.Option(min=1, help="Picture height in pixels.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Picture width in pixels.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures or sequences at once.")] = 1,
    length: Annotated[int | None, typer.Option(min=0, help="Tokens in the cache.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Number format, e.g. bfloat16.")] = None,
    as_json: Json = False,
) -> None:
    """Does a model with these settings fit this machine?  Exit code 1 when it does not; then what would."""
    from zoo_core.api import fit
    from zoo_core.cli.common import print_json, size

    found = fit(name, height=height, width=width, batch=batch, length=length, dtype=dtype)
    if as_json:
        print_json(found)
        raise typer.Exit(0 if found["fits"] else 1)
    e = found["estimate"]
    setting = [f"{e['height']}x{e['width']} pixels"] if e["height"] else []
    setting += [f"{e['length']} tokens"] if e["length"] else []
    setting += [f"batch {e['batch']}", e["dtype"]]
    print(f"{found['name']}: {size(e['total_bytes'])} for {', '.join(setting)}")
    print(f"  weights {size(e['weights_bytes'])}, activations {size(e['activation_bytes'])}, cache {size(e['cache_bytes'])}, fixed {size(e['fixed_bytes'])}")
    for place in found["places"]:
        print(
            f"  {place['device']} ({place['name']}): {size(place['available_bytes'])} free of {size(place['memory_bytes'])}: "
            + ("fits" if place["fits"] else "too small")
        )
    for other in found["alternatives"]:
        print(f"  would fit: {other['change']} ({size(other['total_bytes'])})")
    if not found["fits"] and not found["alternatives"]:
        print("  no smaller setting would fit: choose a smaller model (zoo list --max-memory)")
    raise typer.Exit(0 if found["fits"] else 1)


def load_command(
    name: Annotated[str, typer.Argument(help="name[@variant][#revision], a folder, hf://org/repo or a bundle.zoo")],
    weights: Annotated[str | None, typer.Option(help="File, folder, hf://..., or 'random'.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda...")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="Number format.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Configuration change (repeatable).")] = None,
    as_json: Json = False,
) -> None:
    """Load a model and print what loading did: files, verification, casts, kernels, seconds and bytes per step."""
    from zoo_core.cli.common import print_json, size
    from zoo_core.loading import load

    model = load(name, weights=weights, device=device, dtype=dtype, overrides=overrides)
    report = model.report
    assert report is not None
    if as_json:
        print_json(report.to_dict())
        return
    print(repr(model))
    for file in report.files:
        print(f"  file {file.path} {size(file.size)} verified: {file.verified}")
    for part, cast in report.cast.items():
        print(f"  cast {part}: {cast}")
    for site, choice in report.kernels.items():
        print(f"  kernel {site}: {choice}")
    for step, seconds in report.seconds.items():
        print(f"  {step}: {seconds:.3f} s")
    for warning in report.warnings:
        print(f"  warning: {warning}")


def completion(shell: Annotated[str, typer.Argument(help="bash, zsh or fish")]) -> None:
    """Print the completion script of a shell, e.g. for bash: eval "$(zoo completion bash)"."""
    from zoo_core.cli.completion import SCRIPTS
    from zoo_core.errors import InputError

    if shell not in SCRIPTS:
        raise InputError(f"there is no completion for {shell!r}", fix=f"one of {', '.join(SCRIPTS)}")
    typer.echo(SCRIPTS[shell], nl=False)
