"""``nearest_code(x, codebook, metric="l2") -> indices``: the look-up of vector-quantised tokenizers.

    l2:     argmin_k |x - c_k|^2            = argmax_k (x . c_k - |c_k|^2 / 2)
    cosine: argmax_k x . c_k / |c_k|        (a code of length 0 scores 0)

x: [..., d], codebook: [K, d] -> int64 [...].  Scores are float32; of equal scores the lowest index wins.  No gradients (indices).
"""

from __future__ import annotations

from typing import Any

from zoo_kernels.definition import loader, nbytes, on_cpu, on_triton, randn
from zoo_kernels.registry import KernelRegistry
from zoo_kernels.spec import KernelImpl, OpSpec

SIZES = {"empty": ((0, 16), 37), "tiny": ((2, 21, 16), 37), "small": ((2, 256, 32), 1024), "large": ((16384, 32), 16384)}
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-5, "float16": 1e-5}


def example(device: Any, dtype: Any, seed: int = 0, size: str = "tiny") -> tuple[list[Any], dict[str, Any]]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    shape, codes = SIZES[size]
    return [randn(shape, generator, device, dtype), randn((codes, shape[-1]), generator, device, dtype)], {}


VARIANTS = {
    "cosine": lambda args, kwargs: (args, {"metric": "cosine"}),
    "wide": lambda args, kwargs: ([a.repeat_interleave(5, -1) for a in args], kwargs),  # 80 channels
    "one-code": lambda args, kwargs: ([args[0], args[1][:1]], kwargs),
}
"""Other calls that parity covers."""


def compare(out: Any, ref: Any, args: Any, kwargs: Any) -> float:
    """Largest relative excess of the distance of the chosen code over the reference's (two codes equally far up to rounding may be confused)."""
    import torch

    if out.shape != ref.shape or out.dtype != torch.int64:
        return float("inf")
    x, codebook = (t.double() for t in args[:2])
    if not ref.numel():
        return 0.0
    if int(out.min()) < 0 or int(out.max()) >= codebook.shape[0]:
        return float("inf")
    if (args[2] if len(args) > 2 else kwargs.get("metric", "l2")) == "cosine":
        codebook = torch.nn.functional.normalize(codebook, dim=-1)
    scores = [(x * codebook[i]).sum(-1) - codebook[i].square().sum(-1) / 2 for i in (ref, out)]
    scale = x.norm(dim=-1) * codebook.norm(dim=-1).max() + codebook.square().sum(-1).max()
    return float(((scores[0] - scores[1]) / scale.clamp_min(1e-30)).max())


def bytes_moved(args: Any, kwargs: Any) -> int:
    """x and codebook read, indices written."""
    return nbytes(*args[:2]) + 8 * int(args[0].shape[:-1].numel())


def flops(args: Any, kwargs: Any) -> int:
    """The product."""
    return 2 * int(args[0].numel()) * int(args[1].shape[0])


def rival(x: Any, codebook: Any, metric: str = "l2") -> Any:
    """``torch.cdist`` and argmin, as most tokenizers do."""
    import torch

    return torch.cdist(x.flatten(0, -2).float(), codebook.float()).argmin(-1).view(x.shape[:-1])


def register(registry: KernelRegistry) -> None:
    from zoo_kernels.operations.nearest_code.reference import nearest_code

    signature = 'nearest_code(x[...,d], codebook[K,d], metric="l2"|"cosine") -> int64[...]'
    registry.add_op(
        OpSpec(
            "nearest_code", signature, nearest_code, example, TOLERANCE, bytes_moved, flops, rival, "torch.cdist + argmin", compare=compare, variants=VARIANTS
        )
    )
    registry.add(KernelImpl("nearest_code", "cpu", loader(f"{__name__}.cpu", "nearest_code"), on_cpu, priority=10, backward=False))
    registry.add(
        KernelImpl(
            "nearest_code", "triton", loader(f"{__name__}.triton", "nearest_code"), on_triton, priority=20, backward=False, compile_safe=False, probe=True
        )
    )
