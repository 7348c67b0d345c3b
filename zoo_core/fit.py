"""Does it fit?  A memory estimate from a model's card, held against this machine.

The formula (all coefficients stand below ``memory:`` in the card; what is absent counts 0):

    weights    = weights_bytes * bytes(dtype) / bytes(published dtype)
    total      = weights + fixed_bytes
               + batch * (per_batch_bytes + per_pixel_bytes * height * width + per_token_bytes * length)

``per_pixel_bytes`` is the peak of activations per picture pixel (for latent models: of the largest stage, the decoder); ``per_token_bytes`` the
key-value cache per token; activations are scaled like the weights when ``dtype`` differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from zoo_core.devices import BYTES, SHORT, memory
from zoo_core.errors import InputError

HEADROOM = 0.9
"""Share of the free memory that may be used."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes by cause, for one setting."""

    weights_bytes: int
    fixed_bytes: int
    activation_bytes: int
    cache_bytes: int
    dtype: str
    height: int
    width: int
    batch: int
    length: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.fixed_bytes + self.activation_bytes + self.cache_bytes

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "total_bytes": self.total_bytes}


def estimate(
    card: Mapping[str, Any], *, height: int | None = None, width: int | None = None, batch: int = 1, length: int | None = None, dtype: str | None = None
) -> Estimate:
    """Estimate for one setting; sizes default to the card's ``defaults`` (``height``, ``width`` or ``size``; ``length`` or ``max_new_tokens``).

    Raises:
        InputError: A size is not positive, or the card says nothing about memory or parameters.
    """
    coefficients = card.get("memory") or {}
    native = native_dtype(card)
    chosen = SHORT.get(dtype, dtype) if dtype else native
    if chosen not in BYTES:
        raise InputError(f"dtype {dtype!r} is unknown", fix=f"one of {', '.join(BYTES)}")
    scale = BYTES[chosen] / BYTES[native]
    stored = coefficients.get("weights_bytes")
    if stored is None:
        if not card.get("parameters"):
            raise InputError(f"the card of {card.get('name')!r} says neither memory.weights_bytes nor parameters", fix="zoo info shows the card")
        stored = card["parameters"] * BYTES[native]
    defaults = card.get("defaults") or {}
    size = defaults.get("size")
    height = height or defaults.get("height") or (size if isinstance(size, int) else None) or width or 0
    width = width or defaults.get("width") or height
    length = length if length is not None else int(defaults.get("length") or defaults.get("max_new_tokens") or 0)
    for label, value in (("height", height), ("width", width), ("length", length), ("batch", batch - 1)):
        if value < 0:
            raise InputError(f"{label} must be positive", fix=f"--{label} N")
    pixels = float(coefficients.get("per_pixel_bytes") or 0) * height * width
    per_batch = float(coefficients.get("per_batch_bytes") or 0)
    tokens = float(coefficients.get("per_token_bytes") or 0) * length
    return Estimate(
        weights_bytes=round(stored * scale),
        fixed_bytes=round(coefficients.get("fixed_bytes") or 0),
        activation_bytes=round(batch * (per_batch + pixels) * scale),
        cache_bytes=round(batch * tokens * scale),
        dtype=chosen, height=height, width=width, batch=batch, length=length,
    )  # fmt: skip


def native_dtype(card: Mapping[str, Any]) -> str:
    """The dtype that the card's bytes are for."""
    precision = card.get("precision") or {}
    name = precision.get("default") or next(iter(precision.values()), "float32")
    return name if name in BYTES else "float32"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an estimate fits one place."""

    device: str
    total_bytes: int
    available_bytes: int
    fits: bool


def places(*, accelerators: bool = True) -> list[dict[str, Any]]:
    """Memories of this machine (asking for accelerators imports torch)."""
    total, available = memory()
    found = [{"device": "cpu", "name": "main memory", "memory_bytes": total, "available_bytes": available}]
    if accelerators:
        from zoo_core.devices import describe

        found = [*describe()["accelerators"], *found]
    return found


def judge(wanted: Estimate, where: list[dict[str, Any]]) -> list[Verdict]:
    """One verdict per memory; at most :data:`HEADROOM` of what is free counts."""
    return [Verdict(p["device"], p["memory_bytes"], p["available_bytes"], wanted.total_bytes <= HEADROOM * p["available_bytes"]) for p in where]


def alternatives(card: Mapping[str, Any], wanted: Estimate, available: int) -> list[tuple[str, Estimate]]:
    """Smaller settings that would fit in ``available`` bytes, mildest first."""
    limit = HEADROOM * available
    options: list[tuple[str, dict[str, Any]]] = []
    if wanted.batch > 1:
        options += [(f"batch {b}", {"batch": b}) for b in _halves(wanted.batch, 1)]
    if wanted.dtype in ("float32", "float64"):
        options.append(("dtype bfloat16", {"dtype": "bfloat16"}))
    if wanted.activation_bytes and wanted.height > 64:
        options += [(f"{s}x{s} pixels", {"height": s, "width": s}) for s in _halves(max(wanted.height, wanted.width), 64)]
    if wanted.cache_bytes:
        options += [(f"length {n}", {"length": n}) for n in _halves(wanted.length, 256)]
    base = {"height": wanted.height, "width": wanted.width, "batch": wanted.batch, "length": wanted.length, "dtype": wanted.dtype}
    found: list[tuple[str, Estimate]] = []
    kinds: set[str] = set()
    for label, change in options:
        kind = next(iter(change))
        if kind not in kinds and (smaller := estimate(card, **{**base, **change})).total_bytes <= limit:
            found.append((label, smaller))
            kinds.add(kind)
    if not found and wanted.dtype == "float32":
        least = {key: change[key] for _, change in options for key in change}
        if (smaller := estimate(card, **{**base, **least})).total_bytes <= limit:
            found.append((", ".join(f"{key} {value}" for key, value in least.items()), smaller))
    return found


def _halves(value: int, least: int) -> list[int]:
    result = []
    while (value := value // 2) >= least:
        result.append(value)
    return result


def advice(card: Mapping[str, Any], wanted: Estimate, available: int | None = None) -> str:
    """What to do when it does not fit, in one line."""
    found = alternatives(card, wanted, memory()[1] if available is None else available)
    if found:
        return "would fit: " + "; or ".join(f"{label} ({smaller.total_bytes / 1e9:.1f} GB)" for label, smaller in found)
    return "a smaller model (zoo list --max-memory), quant=, or a machine with more memory"
