"""Adapters through PEFT (a paper's own adapter formats are added by its plugin as ``adapter.<name>``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo_core.errors import InputError, MissingDependencyError


def load_peft(model: Any, argument: str = "", *, merge: bool = True) -> Any:
    """Load a PEFT adapter folder: ``zoo.load(..., adapter="peft:FOLDER")``.

    Args:
        argument: The folder (holds ``adapter_config.json`` and ``adapter_model.safetensors``).
        merge: Add the update into the weights (no cost at inference); False keeps it apart.
    """
    folder = Path(argument)
    if not (folder / "adapter_config.json").is_file():
        raise InputError(f"adapter folder {argument!r} has no adapter_config.json", fix="adapter='peft:<folder of a saved PEFT adapter>'")
    if not (folder / "adapter_model.safetensors").is_file():
        raise InputError(f"adapter folder {argument!r} has no adapter_model.safetensors", fix="save the adapter with safe_serialization=True")
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingDependencyError("adapters need peft", fix="pip install 'zoo-llm[adapters]'") from error
    adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
    return adapted.merge_and_unload() if merge else adapted
