"""Records: an operation, an implementation of it, a query, and a choice.

An operation has one name, one documented signature and one reference implementation in plain PyTorch, which defines it.  Any number of other
implementations state the reasons why they cannot serve a query."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Query:
    """What a call site needs, known when the model is built.

    Attributes:
        device: Device type (``cpu``, ``cuda``...).
        dtype: Of the inputs.
        needs_grad: Whether gradients will be asked for.
        hints: Shape facts that the op documents (``head_dim=32``...); absent means any.
        compiled: Whether the call will stand inside ``torch.compile``.
    """

    device: torch.device
    dtype: torch.dtype
    needs_grad: bool = False
    hints: Mapping[str, Any] = field(default_factory=dict)
    compiled: bool = False


@dataclass(frozen=True)
class KernelImpl:
    """One implementation.

    Attributes:
        op: Operation it implements.
        name: ``reference``, ``cpu``, ``triton``...
        load: Returns the callable (imports what it needs).
        supports: ``supports(query) -> reasons why not`` (empty: it can).
        priority: Larger is tried first.
        backward: Gradients work.
        compile_safe: No graph break under ``torch.compile``.
        deterministic: Same bits every time.
        version: Changes when its results may change; part of the quarantine key.
        probe: Checked in a child process before its first use on a machine (a kernel that may crash the process or not compile).
        origin: ``module:function`` that registers it, for third parties (``registry.register_from`` fills it); the child process calls it.
    """

    op: str
    name: str
    load: Callable[[], Callable[..., Any]]
    supports: Callable[[Query], list[str]] = lambda query: []
    priority: int = 0
    backward: bool = True
    compile_safe: bool = True
    deterministic: bool = True
    version: int = 1
    probe: bool = False
    origin: str = ""


@dataclass(frozen=True)
class OpSpec:
    """One operation.

    Attributes:
        name: Unique.
        signature: Human-readable signature with shapes.
        reference: The definition.
        example: ``example(device, dtype, seed, size) -> (args, kwargs)`` for parity and benchmarks; ``size`` is ``"empty"`` (no tokens),
            ``"tiny"``, ``"small"`` or ``"large"``.
        tolerance: dtype name -> largest relative error ``|out - ref| / |ref|`` (norms) against the reference in float32.
        bytes_moved: ``bytes_moved(args, kwargs)``: every input read once, every output written once.
        flops: ``flops(args, kwargs)``.
        rival: What a user would call otherwise, same arguments (None: nothing), and its name.
        rival_agrees: The rival computes the same; False: another function in the same place (its name says which).
        differentiable: Positions of ``args`` that may need gradients.
        compare: ``compare(out, ref, args, kwargs) -> error`` where a norm makes no sense (indices, several results); None: relative norm.
        variants: Name -> ``change(args, kwargs) -> (args, kwargs)``: other ways to call the op that parity must cover (no weight, another style...).
    """

    name: str
    signature: str
    reference: Callable[..., Any]
    example: Callable[..., tuple[Sequence[Any], dict[str, Any]]]
    tolerance: Mapping[str, float]
    bytes_moved: Callable[..., int]
    flops: Callable[..., int]
    rival: Callable[..., Any] | None = None
    rival_name: str = ""
    rival_agrees: bool = True
    differentiable: Sequence[int] = ()
    compare: Callable[..., float] | None = None
    variants: Mapping[str, Callable[[list[Any], dict[str, Any]], tuple[list[Any], dict[str, Any]]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """What :func:`zoo_kernels.select` decided: implementation, who pinned it, and why the others were not taken.

    ``surprises``: those of ``rejected`` that one would have expected to serve (forced, quarantined, failed their check); part of the text.
    """

    op: str
    name: str
    pinned_by: str = ""
    rejected: Mapping[str, Sequence[str]] = field(default_factory=dict)
    surprises: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        pinned = f" (forced by {self.pinned_by})" if self.pinned_by else ""
        return f"{self.name}{pinned}" + "".join(f"; not {name}: {why}" for name, why in self.surprises.items())
