"""Metadata hook: one extra per folder in ``plugins/``, and ``all``."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELEASE_SWITCH = "ZOO_RELEASE_BUILD"
KNOWN = {
    "dc-ae": ["zoo-dc-ae"], "sana": ["zoo-sana", "zoo-dc-ae"], "hart": ["zoo-hart"], "vila-u": ["zoo-vila-u", "zoo-llm"], "longvila": ["zoo-longvila", "zoo-llm"],
    "duo-attention": ["zoo-duo-attention", "zoo-llm"], "qserve": ["zoo-qserve", "zoo-llm"], "longlora": ["zoo-longlora", "zoo-llm"],
    "sparse-refine": ["zoo-sparse-refine"], "most": ["zoo-most"], "llm": ["zoo-llm"],
}  # fmt: skip


class ExtrasHook(MetadataHookInterface):
    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        root = Path(self.root)
        release = bool(os.environ.get(RELEASE_SWITCH)) or (root / "PKG-INFO").exists()
        folders = {}
        for project in sorted(root.glob("plugins/*/pyproject.toml")):
            folders[tomllib.loads(project.read_text())["project"]["name"]] = project.parent
        kernels = root / "kernels"
        major_minor = ".".join(str(metadata["version"]).split(".")[:2])

        def requirement(name: str) -> str:
            if not release and name in folders:
                return f"{name} @ {folders[name].as_uri()}"
            return f"{name}~={major_minor}.0"

        present = {extra: names for extra, names in KNOWN.items() if release_or_all_present(names, folders)}
        extras = {extra: [requirement(name) for name in names] for extra, names in present.items()}
        extras["all"] = sorted({line for lines in extras.values() for line in lines})
        metadata["optional-dependencies"] = extras
        if not release and (kernels / "pyproject.toml").exists():
            metadata["dependencies"] = [f"zoo-kernels @ {kernels.as_uri()}" if d.startswith("zoo-kernels") else d for d in metadata["dependencies"]]


def release_or_all_present(names: list[str], folders: dict[str, Path]) -> bool:
    return all(name in folders for name in names)
