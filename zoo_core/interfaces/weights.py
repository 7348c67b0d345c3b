"""What a builder is given and what loading reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from zoo_core.specs import ModelSpec


@dataclass(slots=True)
class FileRecord:
    """A weight file that was used: where it came from, its size, digest and whether that was checked."""

    path: str
    source: str = ""
    size: int = 0
    sha256: str = ""
    verified: str = "no"
    """``"downloaded"`` (hashed while writing), ``"remembered"``, ``"hashed"``, ``"trusted-first-use"`` or ``"no"``."""


@dataclass(slots=True)
class LoadReport:
    """What one ``zoo.load`` did.

    Attributes:
        tensors: Component -> tensor key -> file it came from.
        cast: Component -> ``"bfloat16->float32: 548 tensors"``.
        kernels: Call site -> chosen implementation and why.
        seconds: Step -> wall time.
        bytes: Step -> bytes read, downloaded or allocated.
    """

    name: str = ""
    layout: str = ""
    files: list[FileRecord] = field(default_factory=list)
    tensors: dict[str, dict[str, str]] = field(default_factory=dict)
    cast: dict[str, str] = field(default_factory=dict)
    kernels: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class ResolvedWeights:
    """Weights on this machine.

    Attributes:
        root: Folder that holds the files (a published folder, a hub snapshot, the plugin's data folder), or the folder of a single file.
        files: Published relative name -> absolute path.
        layout: Name of the :class:`~zoo_core.specs.WeightsSpec`, or "" when the builder should detect it from the keys.
        source: ``"embedded"``, ``"local"``, ``"hf://..."``, ``"pypi://..."`` or ``"random"``.
        seed: Seed when ``source == "random"``; the builder then initialises instead of reading.
        config: Configuration read beside the weights (published form), or {}.
    """

    root: Path | None
    files: dict[str, Path] = field(default_factory=dict)
    layout: str = ""
    source: str = "random"
    seed: int = 0
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def random(self) -> bool:
        return self.source == "random"


@dataclass(slots=True)
class BuildRequest:
    """Everything a builder gets.

    Attributes:
        spec: The model's spec (card included).
        config: Checked configuration: instance of the config class, or a dict.
        weights: Where the weights are.
        device: Target device.
        dtype: Component name -> dtype, with ``""`` for the rest; see :meth:`dtype_for`.
        options: cache, quant, adapter, kernels, compile and whatever else the caller passed for this plugin.
        report: Builders add to it.
        registry: For building other models by name.
    """

    spec: ModelSpec
    config: Any
    weights: ResolvedWeights
    device: torch.device
    dtype: Mapping[str, torch.dtype]
    options: Mapping[str, Any] = field(default_factory=dict)
    report: LoadReport = field(default_factory=LoadReport)
    registry: Any = None

    def dtype_for(self, component: str, default: torch.dtype | None = None) -> torch.dtype | None:
        """The user's dtype for ``component``, else the one for all (``""``), else the card's, else ``default``."""
        import torch

        if component in self.dtype:
            return self.dtype[component]
        if "" in self.dtype:
            return self.dtype[""]
        precision = self.spec.card.get("precision", {})
        name = precision.get(component, precision.get("default"))
        return getattr(torch, name) if name else default
