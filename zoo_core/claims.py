"""A paper's headline numbers as runnable measurements.

A plugin registers :class:`~zoo_core.specs.ClaimSpec` records.  ``zoo claims`` shows each with the paper's value, the value measured here and a status;
``zoo claims --run NAME`` measures.  The statuses are

| status | meaning |
|---|---|
| measured | measured here in the paper's setting |
| scaled | measured here in a smaller or otherwise different setting, which the claim states |
| not run | could be measured here |
| needs ... | this machine lacks something: ``cuda``, ``weights:NAME``, ``data:NAME`` (a folder below ``ZOO_DATA``), ``package:NAME`` |
| not checkable | there is no measurement, only the paper's number |
| failed | the measurement raised |
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core.errors import InputError, UnknownNameError, ZooError
from zoo_core.evaluation.results import write_json

if TYPE_CHECKING:
    import torch

    from zoo_core.specs import ClaimSpec

SCHEMA = 1


@dataclass(slots=True)
class ClaimContext:
    """What a measurement gets.

    Attributes:
        device: Where to measure.
        seconds: Budget; a measurement chooses sizes and repeats so that it ends in about this time.
        seed: For everything random.
        folder: For files of the measurement.
        log: ``log(text)`` tells the user what is going on.
    """

    device: torch.device
    seconds: float = 60.0
    seed: int = 0
    folder: Path = field(default_factory=Path)
    log: Callable[[str], None] = lambda text: None
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds of the budget that are left (at least 0)."""
        return max(0.0, self.seconds - (time.monotonic() - self.began))

    def data(self, name: str) -> Path:
        """Folder of a data set below ``ZOO_DATA``; :class:`InputError` when it is absent."""
        path = data_folder(name)
        if path is None:
            raise InputError(f"data set {name!r} is not on this machine", fix=f"put it at $ZOO_DATA/{name}")
        return path


@dataclass(slots=True)
class ClaimRow:
    """One line of the table; ``holds`` compares with the tolerance and is None when the setting is scaled or no tolerance is given."""

    name: str
    summary: str
    paper: float | str
    unit: str
    setting: str
    source: str
    hardware: str
    status: str
    value: float | None = None
    holds: bool | None = None
    note: str = ""
    scaled: str = ""
    date: str = ""
    machine: str = ""


def data_folder(name: str) -> Path | None:
    """``$ZOO_DATA/<name>`` when it exists and lies inside."""
    root = os.environ.get("ZOO_DATA")
    if not root:
        return None
    path = Path(root) / name
    return path if path.is_dir() and path.resolve().is_relative_to(Path(root).resolve()) else None


def missing(needs: Sequence[str]) -> list[str]:
    """Which of a claim's needs this machine does not meet (nothing is downloaded)."""
    return [need for need in needs if not _met(need)]


def _met(need: str) -> bool:
    kind, _, name = need.partition(":")
    if kind == "cuda":
        import torch

        return torch.cuda.is_available()
    if kind == "data":
        return data_folder(name) is not None
    if kind == "package":
        import importlib.util

        return importlib.util.find_spec(name) is not None
    if kind == "weights" and name:
        from zoo_core.hub import resolve_weights
        from zoo_core.registry import get_registry

        try:
            return not resolve_weights(get_registry().model(name), offline=True).random
        except ZooError:
            return False
    return False  # anything else only a person can judge


def claims(plugin: str | None = None, *, registry: Any = None) -> list[ClaimSpec]:
    """All claims of one plugin, or of every usable installed plugin, in the order they were registered."""
    if registry is None:
        from zoo_core.registry import get_registry

        registry = get_registry()
    if plugin is not None:
        registry.plugin(plugin)  # not installed, blocked or broken: say so
    found: list[ClaimSpec] = []
    for name in registry.names("claims"):
        try:
            found.append(registry.get("claims", name, plugin=plugin))
        except UnknownNameError:  # another plugin's
            continue
        except ZooError:  # a broken plugin harms nobody else; zoo doctor explains
            if plugin is not None:
                raise
    return found


def select(specs: Sequence[ClaimSpec], names: Sequence[str]) -> list[ClaimSpec]:
    """The claims with these names, in this order; :class:`UnknownNameError` with suggestions otherwise."""
    import difflib

    table = {spec.name: spec for spec in specs}
    for name in names:
        if name not in table:
            near = difflib.get_close_matches(name, table, 5)
            fix = f"did you mean {', '.join(near)}?" if near else "zoo claims"
            raise UnknownNameError(f"claim {name!r} is unknown", tried=[f"{len(table)} claims"], fix=fix, suggestions=near)
    return [table[name] for name in names]


def measure(
    spec: ClaimSpec,
    *,
    folder: Path,
    device: torch.device | None = None,
    seconds: float = 60.0,
    seed: int = 0,
    log: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Run one measurement and write ``<folder>/<name>.json``.

    A :class:`ZooError` inside the measurement is recorded as ``failed`` with its text; any other exception is a bug and propagates.

    Returns:
        The record: ``status``, ``value``, ``note``, ``rows``, ``setting`` and where it was measured.
    """
    import torch

    from zoo_core.evaluation import provenance
    from zoo_core.specs import resolve

    lacking = missing(spec.needs)
    if spec.measure is None or lacking:
        return {"name": spec.name, "status": _unmet(spec, lacking), "value": None, "note": ""}
    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    work = folder / f"{spec.name}.files"
    work.mkdir(parents=True, exist_ok=True)
    context = ClaimContext(device, seconds, seed, work, log or (lambda text: None))
    began = time.perf_counter()
    try:
        outcome = dict(resolve(spec.measure)(context))
        status = "scaled" if spec.scaled else "measured"
    except ZooError as error:
        outcome, status = {"value": None, "note": str(error)}, "failed"
    finally:
        if not any(work.iterdir()):
            work.rmdir()
    value = outcome.get("value")
    record = {
        "schema": SCHEMA,
        "kind": "claim",
        "name": spec.name,
        "status": status,
        "value": None if value is None else float(value),
        "holds": _holds(spec, value, status),
        "paper": spec.paper_value,
        "unit": spec.unit,
        "note": str(outcome.get("note", "")),
        "rows": provenance.plain(outcome.get("rows", [])),
        "setting": provenance.plain(outcome.get("setting", {})),
        "scaled": spec.scaled,
        "device": str(device),
        "budget_seconds": seconds,
        "seconds": round(time.perf_counter() - began, 3),
        "seed": seed,
        "date": provenance.now(),
        "command": provenance.command(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
    }
    if status != "failed":
        write_json(folder / f"{spec.name}.json", record)
    return record


def _holds(spec: ClaimSpec, value: Any, status: str) -> bool | None:
    if status != "measured" or value is None or spec.tolerance is None or isinstance(spec.paper_value, str):
        return None
    lead = float(value) - spec.paper_value if spec.higher_is_better else spec.paper_value - float(value)
    return lead >= -spec.tolerance


def _unmet(spec: ClaimSpec, lacking: Sequence[str]) -> str:
    if lacking:
        return "needs " + ", ".join(lacking)
    return "not checkable" if spec.measure is None else "not run"


def table(specs: Sequence[ClaimSpec], folder: Path) -> list[ClaimRow]:
    """Claimed against measured, with the results that lie in ``folder``."""
    rows = []
    for spec in specs:
        row = ClaimRow(spec.name, spec.summary, spec.paper_value, spec.unit, spec.setting, spec.source, spec.hardware, "", scaled=spec.scaled)
        record = _read(folder / f"{spec.name}.json")
        if record is None:
            row.status = _unmet(spec, missing(spec.needs))
        else:
            row.status, row.value, row.note, row.date = record["status"], record["value"], record.get("note", ""), record.get("date", "")[:10]
            row.holds = _holds(spec, row.value, row.status)
            machine = record.get("machine", {})
            row.machine = ", ".join([*machine.get("gpus", ()), f"{machine.get('cpu', '?')} ({machine.get('cores', '?')} cores)"])
        rows.append(row)
    return rows


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    usable = isinstance(data, dict) and data.get("kind") == "claim" and data.get("schema") == SCHEMA and {"status", "value"} <= data.keys()
    return data if usable else None


def default_folder() -> Path:
    """``benchmarks/results/claims`` inside a checkout, else ``runs/claims``."""
    return Path("benchmarks/results/claims") if Path("benchmarks").is_dir() else Path("runs/claims")


def rows_json(rows: Sequence[ClaimRow]) -> list[dict[str, Any]]:
    """Plain data."""
    return [asdict(row) for row in rows]
