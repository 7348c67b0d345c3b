"""Whether Triton kernels can run for a query."""

from __future__ import annotations

import functools
import importlib.util
import os

from zoo_kernels.spec import Query


@functools.lru_cache(maxsize=1)
def installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def interpreting() -> bool:
    """Triton's interpreter is on (it runs kernels on a CPU, slowly: for tests)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def reasons(query: Query) -> list[str]:
    """Common reasons against a Triton kernel."""
    import torch

    if not installed():
        return ["triton is not installed"]
    if interpreting():
        return []
    if query.device.type != "cuda":
        return [f"Triton needs a GPU, not {query.device.type} (TRITON_INTERPRET=1 runs it on a CPU for tests)"]
    if torch.cuda.is_available() and torch.cuda.get_device_capability(query.device) < (7, 0):
        return [f"compute capability {torch.cuda.get_device_capability(query.device)} is below 7.0"]
    return [f"{query.dtype} is not supported"] if query.dtype not in (torch.float32, torch.float16, torch.bfloat16) else []
