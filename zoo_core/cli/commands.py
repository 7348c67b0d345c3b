"""The table of commands: name -> (target, help).  A target is a typer function, a ``typer.Typer`` or a function that makes one; it is imported when used."""

from __future__ import annotations

COMMANDS: dict[str, tuple[str, str]] = {
    "list": ("zoo_core.cli.models:list_command", "Models: what there is, installed or not."),
    "info": ("zoo_core.cli.models:info_command", "Everything the catalogue says about one model."),
    "search": ("zoo_core.cli.models:search_command", "Models by words."),
    "run": ("zoo_core.cli.run:run", "Use a model: draw, reconstruct, write, segment, predict."),
    "fit": ("zoo_core.cli.models:fit_command", "Does a model with these settings fit this machine?"),
    "load": ("zoo_core.cli.models:load_command", "Load a model and print what loading did."),
    "load-check": ("zoo_core.cli.weights:load_check", "What a weight file is and whether it can be loaded."),
    "pull": ("zoo_core.cli.weights:pull", "Fetch and verify a model's weights."),
    "cache": ("zoo_core.cli.weights:cache_app", "The weight cache: list, verify, prune."),
    "pack": ("zoo_core.cli.weights:pack", "One file that carries a model to a machine without network."),
    "serve": ("zoo_core.cli.serve:serve", "HTTP server with OpenAI-compatible paths."),
    "train": ("zoo_core.cli.train:train", "Train a recipe, or go on with a run."),
    "eval": ("zoo_core.cli.evaluate:eval_app", "Evaluate a model, compare results, write a report."),
    "claims": ("zoo_core.cli.evaluate:claims", "The papers' numbers, and what was measured here."),
    "bench": ("zoo_core.cli.evaluate:bench", "Side-by-side benchmarks."),
    "parity": ("zoo_core.cli.evaluate:parity", "Recorded reference cases against the plugins."),
    "kernels": ("zoo_core.cli.kernels:kernels_app", "Kernel implementations: list, explain, verify, bench."),
    "plugins": ("zoo_core.cli.plugins:plugins_app", "Installed plugins: state, enable, disable, prefer."),
    "doctor": ("zoo_core.cli.plugins:doctor", "Look for what is wrong with this installation."),
    "registry": ("zoo_core.cli.registry_cmd:registry_app", "For authors: build the catalogue, pin revisions."),
    "new-plugin": ("zoo_core.cli.authoring:new_plugin", "Start a plugin of your own."),
    "conformance": ("zoo_core.cli.authoring:conformance", "Check a plugin against the contracts."),
    "completion": ("zoo_core.cli.models:completion", "Print the completion script of a shell."),
}
