"""``entropy_select(scores, threshold, size=None, channels_last=False) -> (coordinates, entropy)``: the pixels whose class scores are uncertain.

    p = softmax(scores over classes),   e = -sum_c p_c ln(max(p_c, 1e-5)),   (b, r, c) of the large picture is taken iff e[b, near(r), near(c)] > threshold

scores: [B, C, h, w], or [B, h, w, C] with ``channels_last``, any strides.  size: (H, W) of the picture, default (h, w); ``near`` is the index map of
``torch.nn.functional.interpolate(mode="nearest")``.  The clamp stands inside the logarithm only; natural logarithm; strictly above.  coordinates: int32
[N, 3] = (image, row, column) of the large picture, contiguous, row-major; entropy: float32 [B, h, w] at the resolution of the scores.  Everything is
float32 inside.  No gradients (indices).  SparseRefine's selector.
"""

from __future__ import annotations

from typing import Any

from zoo_kernels.definition import at_most, loader, nbytes, on_cpu, on_triton, randn
from zoo_kernels.registry import KernelRegistry
from zoo_kernels.spec import KernelImpl, OpSpec, Query

SIZES = {
    "empty": ((2, 5, 0, 0), (0, 0)),
    "tiny": ((2, 19, 6, 9), (12, 18)),
    "small": ((1, 19, 64, 128), (128, 256)),
    "large": ((1, 19, 512, 1024), (1024, 2048)),
}
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-5, "float16": 1e-5}
THRESHOLD = 0.3
LIMIT = 1024
"""Most classes that the Triton kernel holds at once."""


def example(device: Any, dtype: Any, seed: int = 0, size: str = "tiny") -> tuple[list[Any], dict[str, Any]]:
    """Scores that are certain at most places."""
    import torch

    shape, picture = SIZES[size]
    generator = torch.Generator().manual_seed(seed)
    scores = randn(shape, generator, "cpu", torch.float32)
    sharp = 2.0 + 100.0 * torch.rand((shape[0], 1, *shape[2:]), generator=generator)
    return [(scores * sharp).to(device=device, dtype=dtype), THRESHOLD], {"size": picture}


VARIANTS = {
    "same-size": lambda args, kwargs: (args, {}),
    "channels-last": lambda args, kwargs: ([args[0].permute(0, 2, 3, 1).contiguous(), args[1]], {**kwargs, "channels_last": True}),
    "odd-size": lambda args, kwargs: (args, {"size": (17, 16)}),
    "shrink": lambda args, kwargs: (args, {"size": (4, 5)}),
    "none": lambda args, kwargs: ([args[0], 10.0], kwargs),
    "all": lambda args, kwargs: ([args[0], -1.0], kwargs),
}
"""Other calls that parity covers."""


def compare(out: Any, ref: Any, args: Any, kwargs: Any) -> float:
    """Relative error of the entropy; infinite when the coordinates are not exactly the pixels that the returned entropy selects."""
    import torch

    from zoo_kernels.operations.entropy_select.reference import coordinates_of

    (found, entropy), expected = out, ref[1]
    if found.dtype != torch.int32 or not found.is_contiguous() or entropy.shape != expected.shape or entropy.dtype != torch.float32:
        return float("inf")
    if not torch.equal(found, coordinates_of(entropy, args[1], kwargs.get("size"))):
        return float("inf")
    if not expected.numel():
        return 0.0
    flipped = (entropy > args[1]) != (expected > args[1])
    if bool((flipped & ((expected - args[1]).abs() > 1e-5)).any()):
        return float("inf")
    return float((entropy.double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-30))


def bytes_moved(args: Any, kwargs: Any) -> int:
    """Scores read, entropy written; coordinates written depend on the scores and are not counted."""
    scores = args[0]
    classes = scores.shape[-1 if kwargs.get("channels_last") else 1]
    return nbytes(scores) + 4 * int(scores.numel()) // max(1, int(classes))


def flops(args: Any, kwargs: Any) -> int:
    """Maximum, difference, exponential, sum, quotient, logarithm, product, sum: one each per score."""
    return 8 * int(args[0].numel())


def fits(query: Query) -> list[str]:
    """Reasons against the Triton kernel (hint ``classes``)."""
    return [*on_triton(query), *at_most(query, "classes", LIMIT)]


def register(registry: KernelRegistry) -> None:
    from zoo_kernels.operations.entropy_select.reference import entropy_select

    name = "entropy_select"
    signature = "entropy_select(scores[B,C,h,w], threshold, size=(H,W), channels_last=False) -> (coordinates int32[N,3], entropy float32[B,h,w])"
    registry.add_op(OpSpec(name, signature, entropy_select, example, TOLERANCE, bytes_moved, flops, compare=compare, variants=VARIANTS))
    registry.add(KernelImpl(name, "cpu", loader(f"{__name__}.cpu", name), on_cpu, priority=10, backward=False))
    registry.add(KernelImpl(name, "triton", loader(f"{__name__}.triton", name), fits, priority=20, backward=False, compile_safe=False, probe=True))
