"""The merged catalogue that ships with the core: what exists, also where its plugin is not installed, and how to install it here.

``zoo_core/data/registry.json`` is compiled by ``zoo registry build`` from the plugins' fragments; ``zoo_core/data/papers.json`` names the plugins of the
project, also those whose models are not in the catalogue yet.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from typing import Any

from zoo_core import fragment as fragments
from zoo_core.discovery import direct_url

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")


@functools.cache
def catalogue() -> dict[str, dict[str, Any]]:
    """Plugin name -> fragment as shipped (without ``config``, which only the plugin itself needs)."""
    return dict(_load("registry.json").get("plugins", {}))


@functools.cache
def papers() -> dict[str, dict[str, Any]]:
    """Plugin name -> distribution, title, arXiv number and first model names of every paper of the project."""
    return dict(_load("papers.json"))


def _load(name: str) -> dict[str, Any]:
    path = os.path.join(DATA, name)
    try:
        with open(path, "rb") as file:
            data = fragments.parse(file.read(), path)
    except FileNotFoundError:
        return {}
    return data if isinstance(data, dict) else {}


@functools.cache
def cards() -> dict[str, dict[str, Any]]:
    """Model name -> card, of the whole catalogue."""
    return {name: card for fragment in catalogue().values() for name, card in fragments.entries(fragment)}


@functools.cache
def aliases() -> dict[str, str]:
    """Alias -> model name, of the whole catalogue."""
    return {alias: name for name, card in cards().items() for alias in card.get("aliases", ())}


@functools.cache
def announced() -> dict[str, str]:
    """Model name -> plugin, for models of papers whose plugin this release does not have."""
    return {model: plugin for plugin, paper in papers().items() if plugin not in catalogue() for model in paper.get("models", ())}


def first_party(distribution: str) -> bool:
    """Whether a distribution is one of this project's."""
    return any(fragment.get("distribution") == distribution for fragment in catalogue().values()) or any(
        paper.get("distribution") == distribution for paper in papers().values()
    )


def core_folder() -> str | None:
    """The folder that zoo-core was installed from (PEP 610), or None when it came from an index or that folder is gone."""
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            if name.startswith("zoo_core-") and name.endswith(".dist-info"):
                record = direct_url(os.path.join(folder or ".", name)) or {}
                url = str(record.get("url", ""))
                if url.startswith("file://"):
                    from urllib.parse import unquote, urlsplit
                    from urllib.request import url2pathname

                    path = url2pathname(unquote(urlsplit(url).path))
                    return path if os.path.isfile(os.path.join(path, "pyproject.toml")) else None
                return None
    return None


def install_command(plugin: str, distribution: str = "") -> str:
    """The command that installs a plugin into *this* installation.

    From a checkout: ``pip install "<folder>[sana]"`` (with ``-e`` where the core is editable); from an index: ``pip install "zoo-core[sana]"``;
    a plugin that is not one of ours: ``pip install <distribution>``.
    """
    distribution = distribution or papers().get(plugin, {}).get("distribution", f"zoo-{plugin}")
    if not first_party(distribution):
        return f"pip install {distribution}"
    folder = core_folder()
    return f'pip install "{folder}[{plugin}]"' if folder else f'pip install "zoo-core[{plugin}]"'


def dump(data: Any) -> str:
    """JSON as the compiled files hold it: stable order, one line per model, no machine's paths."""
    return json.dumps(data, indent=1, ensure_ascii=False, sort_keys=False) + "\n"
