"""``zoo run``."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo_core.errors import InputError


def run(
    name: Annotated[str, typer.Argument(help="Model: name[@variant], a folder, hf://org/repo or a bundle.zoo")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT] [KEY=VALUE]...", help="Prompt, class numbers or input file, then the method's options.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write [default: MODEL.png, .txt to the screen, .json].")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="Number format, e.g. bfloat16.")] = None,
    weights: Annotated[str | None, typer.Option(help="File, folder, hf://... or 'random'.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Configuration change (repeatable).")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="YAML or JSON file of configuration changes.")] = None,
    kernels: Annotated[str | None, typer.Option(help="op=implementation,...")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a record: model, seed, options, seconds, versions, files.")] = False,
) -> None:
    """Use a model.  load.KEY=VALUE goes to zoo.load; everything else of the form KEY=VALUE to the task's method.

    zoo run sana-emoji "a slice of pizza" --output pizza.png steps=8
    """
    from zoo_core import usage
    from zoo_core.loading import load
    from zoo_core.registry import get_registry

    prompt, options, load_options = split(words or [])
    if seed is not None:
        options["seed"] = seed
    kind = "path" if name.startswith(("/", ".", "~", "local:", "hf:")) or name.endswith(".zoo") else "name"
    if kind == "name":
        get_registry().card(name)  # a wrong name is told before torch is imported
    if output is not None and not output.suffix:
        raise InputError(f"output {str(output)!r} has no suffix", fix="write e.g. --output picture.png")
    if dtype is not None:
        load_options["dtype"] = dtype
    show = sys.stderr.isatty() and not as_json
    model = load(name, device=device, weights=weights, overrides=overrides, config_file=config, kernels=kernels, progress=None, **load_options)
    for warning in model.report.warnings if model.report else ():
        print(f"warning: {warning}", file=sys.stderr)
    begin = time.perf_counter()
    if model.task == "causal-lm" and not as_json and output is None and hasattr(model, "stream") and prompt:
        usage.check_options(model, usage.method_of(model), options)
        for piece in model.stream(prompt, **options):
            print(piece, end="", flush=True)
        print()
        return
    result = usage.call(model, prompt, options, progress=show)
    record = usage.record(model, prompt, options, result, time.perf_counter() - begin)
    record["outputs"] = write_result(model, prompt, result, output, record, as_json)
    if as_json:
        from zoo_core.cli.common import print_json

        print_json(record)
    else:
        for path in record["outputs"]:
            print(f"wrote {path}")


def split(words: list[str]) -> tuple[str | None, dict[str, Any], dict[str, Any]]:
    """Prompt, options of the method, options of ``load``.  A word counts as an option when it starts with ``identifier=``.

    >>> split(["a", "cat", "steps=8", "load.offline=true"])
    ('a cat', {'steps': 8}, {'offline': True})
    """
    from zoo_core.config import parse_value

    prompt: list[str] = []
    options: dict[str, Any] = {}
    load_options: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key.removeprefix("load.").replace("-", "_").isidentifier():
            key = key.replace("-", "_")
            target = load_options if key.startswith("load.") else options
            target[key.removeprefix("load.")] = parse_value(value)
        else:
            prompt.append(word)
    return (" ".join(prompt) if prompt else None), options, load_options


def write_result(model: Any, prompt: str | None, result: Any, output: Path | None, record: dict[str, Any], quiet: bool) -> list[str]:
    """Write what the model made; returns the paths (none when text went to the screen)."""
    from zoo_core.cli.common import write_atomically
    from zoo_core.usage import OUTPUTS

    if hasattr(result, "labels"):
        return _segmentation(model, prompt, result, output)
    images = list(getattr(result, "images", ()))
    if hasattr(result, "texts"):
        text = "\n".join(result.texts)
        if output is None and not images:
            if quiet:
                record["texts"] = result.texts
            else:
                print(text)
            return []
        if not images or (output is not None and output.suffix in (".txt", ".md")):
            assert output is not None
            write_atomically(output, lambda path: Path(path).write_text(text + "\n", encoding="utf-8"))
            return [str(output)]
    if images:
        target = output or free_name(model.name, "png")
        names = [target] if len(images) == 1 else [target.with_name(f"{target.stem}-{i}{target.suffix}") for i in range(len(images))]
        for image, path in zip(images, names):
            _save_picture(image, path, record)
        return [str(path) for path in names]
    data = {key: getattr(result, key) for key in ("trajectories", "probabilities", "agent_ids", "info") if hasattr(result, key)}
    if not data:
        raise InputError(f"{model.name} returned {type(result).__name__}, which the command line cannot write", fix="use it from Python")
    target = output or free_name(model.name, OUTPUTS.get(model.task, "json"))
    write_atomically(target, lambda path: Path(path).write_text(json.dumps(data, default=_plain) + "\n", encoding="utf-8"))
    return [str(target)]


def _segmentation(model: Any, prompt: str | None, result: Any, output: Path | None) -> list[str]:
    """The picture with its classes laid over it, and the class numbers as a palette PNG beside it."""
    import numpy as np
    from PIL import Image

    from zoo_core.cli.common import write_atomically
    from zoo_core.usage import open_picture, overlay

    target = output or free_name(model.name, "png")
    labels = np.asarray(result.labels[0])
    picture = overlay(open_picture(str(prompt)), labels, model.palette)
    write_atomically(target, lambda path: picture.save(path))
    classes = Image.fromarray(labels.astype("uint8"))
    colours = [int(value) for colour in model.palette for value in colour][:768]
    classes.putpalette(colours + [0] * (768 - len(colours)))  # a full palette: else Pillow writes fewer bits and void (255) is lost
    beside = target.with_name(f"{target.stem}-classes.png")
    write_atomically(beside, lambda path: classes.save(path))
    return [str(target), str(beside)]


def _save_picture(image: Any, path: Path, record: dict[str, Any]) -> None:
    """Save; a PNG carries the record (model, prompt, seed, versions) in a text chunk ``zoo``."""
    from zoo_core.cli.common import write_atomically

    settings: dict[str, Any] = {}
    if path.suffix.lower() == ".png":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_text("zoo", json.dumps({key: record[key] for key in ("model", "prompt", "options", "seed", "versions")}))
        settings["pnginfo"] = info
    try:
        write_atomically(path, lambda temporary: image.save(temporary, **settings))
    except (ValueError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"pictures cannot be written as {path.suffix!r}", fix="use .png, .jpg or .webp") from error


def free_name(stem: str, suffix: str) -> Path:
    """``stem.suffix`` in the current folder, or ``stem-2.suffix``... when that exists."""
    path, number = Path(f"{stem}.{suffix}"), 2
    while path.exists():
        path, number = Path(f"{stem}-{number}.{suffix}"), number + 1
    return path


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else os.fspath(value) if hasattr(value, "__fspath__") else str(value)
