"""From a source of tensors into a module, without a second copy of the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import nn

from zoo_core.checkpoint.keymap import KeyMap
from zoo_core.checkpoint.report import MatchReport
from zoo_core.checkpoint.source import DictSource, TensorSource
from zoo_core.errors import CheckpointError
from zoo_core.interfaces.weights import LoadReport

DType = torch.dtype | Callable[[str], torch.dtype | None] | None
_NARROW = (torch.float16, torch.float8_e4m3fn, torch.float8_e5m2)


def load_into(
    module: nn.Module,
    source: TensorSource | Mapping[str, torch.Tensor],
    *,
    keymap: KeyMap | None = None,
    dtype: DType = None,
    device: str | torch.device = "cpu",
    strict: bool = True,
    component: str = "",
    report: LoadReport | None = None,
    scan: Literal["off", "warn", "error"] = "off",
    buffers: Callable[[str, torch.Tensor], torch.Tensor] | Mapping[str, torch.Tensor] | None = None,
) -> MatchReport:
    """Fill ``module`` (usually built under ``torch.device("meta")``) from ``source``.

    A tensor whose dtype and device already fit is assigned as it is: a view of the mapped file, nothing is copied or read.  Otherwise it is cast
    alone and the file's pages are given back at once, so that the peak is the result plus one tensor.  Tied parameters stay tied and may be absent
    under all names but one.  ``_extra_state`` entries are not weights and are left alone.

    Args:
        module: Gets new parameters; ``requires_grad`` is kept.
        keymap: Turns the checkpoint's keys into the module's.
        dtype: For floating-point tensors: one dtype, or ``f(module key) -> dtype``; None keeps what the file has.
        device: Where the tensors go.
        strict: Raise on missing, unexpected and mis-shaped keys.  When False these are only reported; wrong shapes raise in any case.
        component: Name used in errors and in ``report``.
        report: Gets files per tensor, casts and bytes.
        scan: Look for NaN and infinity (reads every byte once): a warning or an error with the tensors' names.
        buffers: Values of buffers that are never in a checkpoint (``persistent=False``): by name, or ``f(name, meta_tensor) -> tensor``.

    Raises:
        CheckpointMismatchError: Keys or shapes differ; ``fields['report']`` is the :class:`MatchReport`.
        CheckpointError: Parameters or buffers would stay without values, values overflow float16/float8, or non-finite values with ``scan="error"``.

    >>> with torch.device("meta"):
    ...     layer = nn.Linear(3, 2)
    >>> load_into(layer, {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}).ok
    True
    """
    opened = source if isinstance(source, TensorSource) else DictSource(source)
    view = keymap.apply(opened) if keymap is not None else opened
    owners = _owners(module)
    match, plan = _compare(owners, view, component)
    if match.mismatched or (strict and not match.ok):
        raise match.error(_where(view))
    target = torch.device(device)
    overflow: list[str] = []
    order = {key: index for index, key in enumerate(view.keys())}
    for key in sorted(plan, key=order.__getitem__):  # file order: reads forwards
        names = plan[key]
        wanted = dtype(names[0]) if callable(dtype) else dtype
        tensor, changed = _fetch(view, key, wanted, target, match, overflow, scan)
        _assign(owners, names, tensor)
        if changed:
            match.bytes_copied += tensor.nbytes
        else:
            match.bytes_mapped += tensor.nbytes
    if overflow:
        raise CheckpointError(
            f"{len(overflow)} tensors{_of(component)} do not fit the range of the requested number format",
            tried=overflow[:8],
            fix="load as bfloat16 or float32",
            tensors=overflow,
        )
    _fill_buffers(module, buffers, target)
    _refuse_meta(module, component, () if strict else match.missing)
    if match.not_finite and scan == "error":
        raise CheckpointError(
            f"{len(match.not_finite)} tensors{_of(component)} hold NaN or infinity",
            tried=match.not_finite[:8],
            fix="fetch the file again",
            tensors=match.not_finite,
        )
    if report is not None:
        _write_report(report, match, view, plan)
    return match


def init_random(module_factory: Callable[[], nn.Module], seed: int = 0, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> nn.Module:
    """Build a module with its own random initialisation, the same for the same seed; the caller's random state is left as it was.

    ``dtype`` becomes the default dtype during construction, so that no float32 copy is ever made.

    >>> torch.equal(init_random(lambda: nn.Linear(2, 2), 7).weight, init_random(lambda: nn.Linear(2, 2), 7).weight)
    True
    """
    target = torch.device(device)
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[target] if target.type == "cuda" else []), target:
        torch.manual_seed(seed)
        try:
            if dtype is not None:
                torch.set_default_dtype(dtype)
            module = module_factory()
        finally:
            torch.set_default_dtype(before)
    return module.to(dtype=dtype) if dtype is not None else module


def _owners(module: nn.Module) -> dict[str, tuple[nn.Module, str, torch.Tensor]]:
    """Key in the state dict -> (owning module, attribute, tensor), with every name of a tied tensor."""
    owners: dict[str, tuple[nn.Module, str, torch.Tensor]] = {}
    for prefix, part in module.named_modules(remove_duplicate=False):
        persistent = {name: value for name, value in part._buffers.items() if name not in part._non_persistent_buffers_set}
        for name, value in {**part._parameters, **persistent}.items():
            if value is not None:
                owners[f"{prefix}.{name}" if prefix else name] = (part, name, value)
    return owners


def _compare(owners: dict[str, tuple[nn.Module, str, torch.Tensor]], view: TensorSource, component: str) -> tuple[MatchReport, dict[str, list[str]]]:
    """The report, and a plan: key in the source -> all names in the module that get this tensor."""
    match = MatchReport(component=component)
    groups: dict[int, list[str]] = {}
    for key, (_, _, value) in owners.items():
        groups.setdefault(id(value), []).append(key)
    plan: dict[str, list[str]] = {}
    for names in groups.values():
        present = [name for name in names if name in view]
        if not present:
            match.missing += names[:1]
            continue
        ours = owners[names[0]][2]
        first = present[0]
        for name in present:
            theirs, kind = view.shape(name), view.dtype(name)
            if theirs != tuple(ours.shape):
                match.mismatched.append((name, str(tuple(ours.shape)), str(theirs)))
            elif kind.is_floating_point != ours.dtype.is_floating_point and not _quantised(kind, ours.dtype):
                match.mismatched.append((name, _short(ours.dtype), _short(kind)))
            elif name != first and view.shape(first) == theirs and not torch.equal(view.get(first), view.get(name)):
                match.mismatched.append((name, f"tied to {first}", "another tensor"))
        plan[first] = names
        match.matched += present
        match.tied |= {name: first for name in names if name != first}
    wrong = {name for name, _, _ in match.mismatched}
    match.matched = [name for name in match.matched if name not in wrong]
    match.unexpected = [key for key in view if key not in owners and not key.endswith("_extra_state")]
    return match, plan


def _quantised(stored: torch.dtype, ours: torch.dtype) -> bool:
    """Booleans may be stored as bytes; nothing else changes between numbers and codes silently."""
    return {stored, ours} <= {torch.bool, torch.uint8}


def _fetch(
    view: TensorSource, key: str, wanted: torch.dtype | None, device: torch.device, match: MatchReport, overflow: list[str], scan: str
) -> tuple[torch.Tensor, bool]:
    tensor = view.get(key)
    stored = tensor.dtype
    to = wanted if wanted is not None and stored.is_floating_point else stored
    if scan != "off" and stored.is_floating_point and not bool(torch.isfinite(tensor.float() if stored.itemsize == 1 else tensor).all()):
        match.not_finite.append(key)
    if to in _NARROW and torch.finfo(stored).max > torch.finfo(to).max and tensor.numel():
        largest = float(tensor.abs().nan_to_num(0, posinf=0).max())
        if largest > torch.finfo(to).max:
            overflow.append(f"{key}: largest value {largest:.3g}, {_short(to)} ends at {torch.finfo(to).max:.3g}")
    if to == stored and device == tensor.device:
        if not tensor.is_contiguous():
            return tensor.contiguous(), True
        view.keep(key)
        return tensor, False
    result = torch.empty(tensor.shape, dtype=to, device=device)
    result.copy_(tensor)
    if to != stored:
        name = f"{_short(stored)}->{_short(to)}"
        match.cast[name] = match.cast.get(name, 0) + 1
    del tensor
    view.release(key)
    return result, True


def _assign(owners: dict[str, tuple[nn.Module, str, torch.Tensor]], names: list[str], tensor: torch.Tensor) -> None:
    value: torch.Tensor | None = None
    for name in names:
        part, attribute, old = owners[name]
        if attribute in part._parameters:
            if value is None:
                value = nn.Parameter(tensor, requires_grad=old.requires_grad and (tensor.is_floating_point() or tensor.is_complex()))
            part._parameters[attribute] = value  # type: ignore[assignment]
        else:
            part._buffers[attribute] = tensor


def _fill_buffers(module: nn.Module, values: Callable[[str, torch.Tensor], torch.Tensor] | Mapping[str, torch.Tensor] | None, device: torch.device) -> None:
    """Non-persistent buffers: from ``values`` when on meta, and onto ``device`` when real."""
    for prefix, part in module.named_modules(remove_duplicate=False):
        for attribute in part._non_persistent_buffers_set:
            value, name = part._buffers.get(attribute), f"{prefix}.{attribute}" if prefix else attribute
            if value is None:
                continue
            if value.is_meta and values is not None:
                given = values(name, value) if callable(values) else values.get(name)
                if given is not None:
                    part._buffers[attribute] = given.to(device)
            elif not value.is_meta and value.device != device:
                part._buffers[attribute] = value.to(device)


def _refuse_meta(module: nn.Module, component: str, allowed: Any) -> None:
    left = [f"parameter {name}" for name, value in module.named_parameters(remove_duplicate=False) if value.is_meta and name not in set(allowed)]
    left += [f"buffer {name}" for name, value in module.named_buffers(remove_duplicate=False) if value.is_meta and name not in set(allowed)]
    if left:
        raise CheckpointError(
            f"{len(left)} tensors{_of(component)} have no values after loading (still on the meta device)",
            tried=left[:8],
            fix="non-persistent buffers are not in checkpoints: compute them outside the meta context, or pass load_into(..., buffers=...)",
            tensors=left,
        )


def _write_report(report: LoadReport, match: MatchReport, view: TensorSource, plan: dict[str, list[str]]) -> None:
    name = match.component or "model"
    files = report.tensors.setdefault(name, {})
    for key, names in plan.items():
        file = view.file(key)
        files.update(dict.fromkeys(names, str(file) if file else "memory"))
    if match.cast:
        report.cast[name] = ", ".join(f"{what}: {count} tensors" for what, count in match.cast.items())
    report.bytes["mapped"] = report.bytes.get("mapped", 0) + match.bytes_mapped
    report.bytes["copied"] = report.bytes.get("copied", 0) + match.bytes_copied
    if match.not_finite:
        report.warnings.append(
            f"{name}: NaN or infinity in {', '.join(match.not_finite[:8])}" + (f" and {len(match.not_finite) - 8} more" if len(match.not_finite) > 8 else "")
        )
    if match.unexpected or match.missing:
        report.warnings.append(f"{name}: {len(match.missing)} missing and {len(match.unexpected)} unexpected keys (strict=False)")


def _where(view: TensorSource) -> str:
    files = sorted({str(file) for key in view if (file := view.file(key)) is not None})
    return repr(files[0]) + (f" and {len(files) - 1} more" if len(files) > 1 else "") if files else "in memory"


def _of(component: str) -> str:
    return f" of {component}" if component else ""


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
