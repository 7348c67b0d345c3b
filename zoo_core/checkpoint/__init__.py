"""Reading, mapping, loading and writing checkpoints.

    source = open_checkpoint("model.safetensors")                 # or a folder, shards, .bin/.pt/.pth, .gguf
    load_into(module_on_meta, source, keymap=KeyMap([Rename("module.{key*}", "{key*}")]), dtype=torch.float32)

Everything is imported when first used: this package costs nothing until then.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo_core.checkpoint.filekind import FileKind, sniff
    from zoo_core.checkpoint.keymap import Drop, Fuse, KeyMap, Rename, Reshape, Split, Table, Transpose
    from zoo_core.checkpoint.load import init_random, load_into
    from zoo_core.checkpoint.open import open_checkpoint
    from zoo_core.checkpoint.report import MatchReport
    from zoo_core.checkpoint.save import save_checkpoint
    from zoo_core.checkpoint.source import DictSource, TensorSource
    from zoo_core.checkpoint.template import detect_layout

_LAZY = {
    "Drop": "keymap",
    "Fuse": "keymap",
    "KeyMap": "keymap",
    "Rename": "keymap",
    "Reshape": "keymap",
    "Split": "keymap",
    "Table": "keymap",
    "Transpose": "keymap",
    "detect_layout": "template",
    "init_random": "load",
    "load_into": "load",
    "open_checkpoint": "open",
    "MatchReport": "report",
    "save_checkpoint": "save",
    "FileKind": "filekind",
    "sniff": "filekind",
    "DictSource": "source",
    "TensorSource": "source",
}
__all__ = [
    "DictSource",
    "Drop",
    "FileKind",
    "Fuse",
    "KeyMap",
    "MatchReport",
    "Rename",
    "Reshape",
    "Split",
    "Table",
    "TensorSource",
    "Transpose",
    "detect_layout",
    "init_random",
    "load_into",
    "open_checkpoint",
    "save_checkpoint",
    "sniff",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(f"zoo_core.checkpoint.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'zoo_core.checkpoint' has no attribute {name!r}")
