"""GGUF files: read once by transformers, kept as safetensors for the next time."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from zoo_core.errors import CheckpointError


def cache_folder() -> Path:
    """Folder for converted models: ``$ZOO_HOME`` or the user's cache folder."""
    home = os.environ.get("ZOO_HOME")
    base = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "zoo"
    return base / "converted"


def converted(path: Path) -> Path:
    """Folder in the transformers layout made from the GGUF file ``path`` (float16 safetensors, tokenizer, config).

    Dequantised values are products of fp16 scales and small integers; float16 keeps them to a relative 5e-4.  The first call takes about 20 seconds
    for 135 M parameters,
    later ones nothing.  The folder is named by the file's digest and published atomically.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    target = cache_folder() / f"{path.stem}-{digest.hexdigest()[:16]}"
    if (target / "config.json").exists():
        return target
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from zoo_core.loading import quiet_bars

    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".making-", dir=target.parent))
    try:
        try:
            with quiet_bars():
                model = AutoModelForCausalLM.from_pretrained(
                    path.parent, gguf_file=path.name, dtype=torch.float16, local_files_only=True, trust_remote_code=False, **_dense(path)
                )
            model.config.__dict__.pop("quantization_config", None)
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise CheckpointError(
                f"GGUF file {path.name}: transformers cannot read it ({error})", fix="pip install gguf, or convert the file to safetensors"
            ) from error
        model.save_pretrained(work)
        tokenizer.save_pretrained(work)
        try:
            os.replace(work, target)
        except OSError:  # another process was faster
            if not (target / "config.json").exists():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _dense(path: Path) -> dict[str, object]:
    """Ask newer transformers for plain dense weights (older ones always dequantise)."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(gguf_file=path.name, dequantize=True)}
