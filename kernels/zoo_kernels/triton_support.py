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


def precision(dtype: object) -> str:
    """``input_precision`` of ``tl.dot`` for float32 operands such that the result stays below the tolerance of ``dtype``.

    Tensor cores with three TF32 products come close to float32; one product is enough beside the rounding of bfloat16.  ROCm has neither.
    """
    import torch

    if torch.version.hip is not None:
        return "ieee"
    return "tf32" if dtype is torch.bfloat16 else "tf32x3"


def programs(device: object) -> int:
    """Programs that fill the device a few times over (4 per multiprocessor; 4 in the interpreter)."""
    import torch

    if torch.device(device).type != "cuda":  # type: ignore[call-overload]
        return 4
    return 4 * torch.cuda.get_device_properties(device).multi_processor_count  # type: ignore[arg-type]
