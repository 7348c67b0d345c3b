"""Comparing a value with a recorded one: what a parity check passes and what it does not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a value may be from the recorded one: the largest ``|actual - expected|`` allowed is the sum of the given parts.

    Attributes:
        std: Times the (population) standard deviation of ``expected``; times its largest magnitude where that deviation is zero.
        abs: Absolute.
        rel: Times ``|expected|``, element by element.
        exact: Equal bit for bit (NaN still fails).

    >>> str(Tolerance(std=1e-4))
    '1e-04 std'
    """

    std: float = 0.0
    abs: float = 0.0
    rel: float = 0.0
    exact: bool = False

    def __post_init__(self) -> None:
        parts = (self.std, self.abs, self.rel)
        if any(not math.isfinite(part) or part < 0 for part in parts) or self.exact == any(parts):
            raise ValueError(
                f"Tolerance(std={self.std}, abs={self.abs}, rel={self.rel}, exact={self.exact}): give exact=True or at least one finite positive part"
            )

    def __str__(self) -> str:
        if self.exact:
            return "exact"
        parts = ((self.std, " std"), (self.abs, " abs"), (self.rel, " rel"))
        return " + ".join(f"{value:.0e}{unit}" for value, unit in parts if value)


EXACT = Tolerance(exact=True)


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison.

    Attributes:
        name: The tensor's name in the case (``"out0.latent"``).
        actual: Tensor, array, number, or any JSON-like value (those compare with ``==``).
        expected: The recorded value.  Two tensors must agree in shape and, unless ``any_dtype``, in dtype.
        tolerance: See :class:`Tolerance`.
    """

    name: str
    actual: Any
    expected: Any
    tolerance: Tolerance = EXACT
    any_dtype: bool = False


@dataclass(slots=True)
class CheckRow:
    """Outcome of one :class:`Check`; ``error`` is the largest absolute error, ``error_std`` the same in units of the expected standard deviation."""

    case: str
    check: str
    passed: bool
    tolerance: str
    error: float | None = None
    error_std: float | None = None
    shape: list[int] | None = None
    note: str = ""


def _tensor(value: Any) -> torch.Tensor | None:
    """``value`` as a CPU tensor, or None when it is not numeric."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, (np.ndarray, np.generic)):
        return torch.from_numpy(np.ascontiguousarray(value)) if np.asarray(value).dtype.kind in "biufc" else None
    if isinstance(value, (bool, int, float, complex)) and not (isinstance(value, int) and abs(value) >= 2**63):
        return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
    if isinstance(value, (list, tuple)) and value:
        try:
            array = np.asarray(value)
        except ValueError:  # ragged
            return None
        return torch.from_numpy(array) if array.dtype.kind in "biuf" else None
    return None


def compare(check: Check, case: str = "") -> CheckRow:
    """Judge one check.

    A value that is not a number (NaN) on either side fails; infinities pass where both sides have the same one.  Shapes must be equal; dtypes too when
    both sides are tensors or arrays.  Errors are computed in float64.
    """
    import numpy as np
    import torch

    tolerance = check.tolerance
    row = CheckRow(case, check.name, False, str(tolerance))
    actual, expected = _tensor(check.actual), _tensor(check.expected)
    if actual is None or expected is None:
        row.passed = type(check.actual) is type(check.expected) and bool(check.actual == check.expected)
        row.tolerance = "equal"
        row.note = "" if row.passed else f"got {_short(check.actual)}, recorded {_short(check.expected)}"
        return row
    row.shape = list(actual.shape)
    if actual.shape != expected.shape:
        row.note = f"shape {tuple(actual.shape)}, recorded {tuple(expected.shape)}"
        return row
    both = all(isinstance(value, (torch.Tensor, np.ndarray)) for value in (check.actual, check.expected))
    if both and not check.any_dtype and actual.dtype != expected.dtype:
        row.note = f"dtype {actual.dtype}, recorded {expected.dtype}".replace("torch.", "")
        return row
    wide = torch.complex128 if actual.is_complex() or expected.is_complex() else torch.float64
    integers = not any(t.is_floating_point() or t.is_complex() for t in (actual, expected))
    a, e = (actual.long(), expected.long()) if integers else (actual.to(wide), expected.to(wide))
    if a.numel() == 0:
        row.passed, row.error, row.note = True, 0.0, "empty"
        return row
    difference = torch.where(a == e, torch.zeros_like(a), a - e).abs().double()
    finite = e[torch.isfinite(e)].to(wide) if not integers else e.double()
    deviation = _deviation(finite)
    row.error = float(difference.max()) if not bool(difference.isnan().any()) else math.nan
    row.error_std = row.error / deviation if deviation else None
    for what, values in (("result", a), ("recording", e)):
        bad = 0 if integers else int(torch.isnan(values).sum())
        if bad:
            row.error, row.error_std, row.note = math.nan, math.nan, f"{bad} of {a.numel()} values of the {what} are NaN"
            return row
    if tolerance.exact:
        row.passed = bool((a == e).all())
    else:
        scale = deviation or float(finite.abs().max() if finite.numel() else 0.0)
        allowed = tolerance.std * scale + tolerance.abs + tolerance.rel * torch.where(torch.isfinite(e), e.abs(), 0).double()
        row.passed = bool((difference <= allowed).all())
    if not row.passed:
        place = tuple(int(i) for i in np.unravel_index(int(difference.argmax()), tuple(a.shape)))
        row.note = (
            f"{int((difference > 0).sum())} of {a.numel()} values differ, most at {list(place)}: {actual[place].item()!r}, recorded {expected[place].item()!r}"
        )
    return row


def _deviation(values: torch.Tensor) -> float:
    if values.numel() < 2:
        return 0.0
    return float((values - values.mean()).abs().square().mean().sqrt())


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"


def _short(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
