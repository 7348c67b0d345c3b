"""Recorded reference cases against the code that users call.

A *case* is a folder with ``case.json`` (``paper``, ``kind``, ...), a configuration, a checkpoint and recorded inputs and outputs.  A plugin registers
one :class:`~zoo_core.specs.ParitySpec` per ``kind``; its handler loads the case through the plugin's ordinary loading code and yields one :class:`Check` per
recorded number:

    def autoencoder(case: ParityCase) -> Iterator[Check]:
        io = case.tensors("io.safetensors")
        model = load_autoencoder(case.path)
        yield Check("out.latent", model.encode(io["in.image"]), io["out.latent"], Tolerance(std=1e-4))

:func:`run_cases` turns cases into rows; ``zoo parity PLUGIN CASE_DIR...`` prints them; :func:`case_parameters` feeds them to pytest.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from zoo_core.errors import MissingDependencyError, ParityError, UnknownNameError
from zoo_core.evaluation.tolerance import Check, CheckRow, Tolerance, compare, number

if TYPE_CHECKING:
    import torch

__all__ = ["CaseResult", "Check", "CheckRow", "ParityCase", "Tolerance", "case_parameters", "compare", "find_cases", "golden_folder", "run_case", "run_cases"]


@dataclass(slots=True)
class CaseResult:
    """Rows of one case; ``unusable`` says why it could not be run at all (a file is missing, no handler for its kind)."""

    case: str
    path: str
    kind: str = ""
    rows: list[CheckRow] = field(default_factory=list)
    seconds: float = 0.0
    unusable: str = ""

    @property
    def passed(self) -> bool:
        return not self.unusable and bool(self.rows) and all(row.passed for row in self.rows)

    def report(self) -> str:
        """Plain text: one line per row, failures first."""
        if self.unusable:
            return f"{self.case}: unusable\n{self.unusable}"
        rows = sorted(self.rows, key=lambda row: row.passed)
        lines = [
            f"{'ok  ' if r.passed else 'FAIL'} {r.check}: error {number(r.error)} ({number(r.error_std)} std), tolerance {r.tolerance} {r.note}".rstrip()
            for r in rows
        ]
        return "\n".join([f"{self.case} [{self.kind}]: {sum(not r.passed for r in rows)} of {len(rows)} failed", *lines])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; numbers that are not finite become ``None``."""
        data = asdict(self) | {"passed": self.passed}
        for row in data["rows"]:
            for key in ("error", "error_std"):
                if row[key] is not None and not math.isfinite(row[key]):
                    row[key] = None
        return data


class ParityCase:
    """A case folder.

    Args:
        path: The folder.

    Raises:
        ParityError: The folder or its ``case.json`` is missing or not valid.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise ParityError(f"case folder {self.path} does not exist", fix="give a folder that holds case.json")
        meta = self.json("case.json")
        if not isinstance(meta, dict) or not isinstance(meta.get("kind"), str):
            raise ParityError(f"{self.path / 'case.json'} names no 'kind'", fix='write {"schema": 1, "paper": ..., "kind": ...}')
        self.meta: dict[str, Any] = meta
        self._tensors: dict[str, dict[str, torch.Tensor]] = {}

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def kind(self) -> str:
        """Which handler runs it."""
        return str(self.meta["kind"])

    def file(self, name: str) -> Path:
        """Path of the file or folder ``name`` inside the case; :class:`ParityError` when it is absent or the name leaves the case."""
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts:
            raise ParityError(f"case {self.path}: file name {name!r} leaves the folder", fix="name files relative to the case folder")
        path = self.path / name
        if not path.exists():
            present = ", ".join(sorted(p.name for p in self.path.iterdir())[:12])
            raise ParityError(
                f"case {self.path}: {name} is missing", tried=[f"the folder holds: {present or 'nothing'}"], fix="restore the file, or record the case again"
            )
        return path

    def has(self, name: str) -> bool:
        """Whether the case has this file."""
        return (self.path / name).exists()

    def json(self, name: str) -> Any:
        """Parsed JSON file."""
        path = self.file(name)
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ParityError(f"{path} is not valid JSON: {error}", fix="restore the file") from error

    def tensors(self, name: str = "io.safetensors") -> dict[str, torch.Tensor]:
        """All tensors of a safetensors file (read once)."""
        if name not in self._tensors:
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            path = self.file(name)
            try:
                self._tensors[name] = load_file(path)
            except SafetensorError as error:
                raise ParityError(f"{path} is not a safetensors file: {error}", fix="restore the file") from error
        return self._tensors[name]

    def __repr__(self) -> str:
        return f"ParityCase({str(self.path)!r}, kind={self.kind!r})"


# -- running -------------------------------------------------------------------------------------------------------------------

Handler = Callable[[ParityCase], Iterable[Check]]


def find_handler(plugin: str, kind: str, registry: Any = None) -> Handler:
    """The handler that ``plugin`` registered for ``kind``; :class:`ParityError` when it has none, the registry's own error when the plugin cannot be used."""
    from zoo_core.specs import resolve

    if registry is None:
        from zoo_core.registry import get_registry

        registry = get_registry()
    registry.plugin(plugin)  # unknown, not installed or broken: its own error
    try:
        spec = registry.get("parity", kind, plugin=plugin)
    except UnknownNameError as error:
        raise ParityError(f"plugin {plugin!r} has no parity handler for kind {kind!r}", tried=error.tried, fix=error.fix or f"zoo plugins {plugin}") from error
    handler: Handler = resolve(spec.run)
    return handler


def run_case(case: ParityCase | str | os.PathLike[str], handler: Handler | None = None, *, plugin: str | None = None, registry: Any = None) -> CaseResult:
    """Run one case.

    Args:
        case: The case or its folder.
        handler: Called with the case; found by ``plugin`` (default: the case's ``paper``) and kind when None.

    Returns:
        The rows.  An exception inside the handler becomes a failed row; a case that cannot be run (:class:`ParityError`, a missing package) becomes
        ``unusable``.  A handler that yields nothing fails: it checked nothing.
    """
    result = CaseResult(
        case=Path(case.path if isinstance(case, ParityCase) else case).resolve().name, path=str(case.path if isinstance(case, ParityCase) else case)
    )
    started = time.perf_counter()
    try:
        opened = case if isinstance(case, ParityCase) else ParityCase(case)
        result.kind = opened.kind
        run = handler or find_handler(plugin or str(opened.meta.get("paper", "")), opened.kind, registry)
        result.rows.extend(_rows(run, opened))
    except (ParityError, MissingDependencyError) as error:
        result.unusable = str(error)
    result.seconds = time.perf_counter() - started
    return result


def _rows(handler: Handler, case: ParityCase) -> Iterator[CheckRow]:
    count = 0
    try:
        for check in handler(case):
            count += 1
            yield compare(check, case.name)
    except (ParityError, MissingDependencyError):
        raise
    except Exception as error:
        trace = error.__traceback__
        while trace and trace.tb_next:
            trace = trace.tb_next
        where = f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})" if trace else ""
        yield CheckRow(case.name, "(handler)", False, "", note=f"{type(error).__name__}: {error}{where}")
        return
    if not count:
        yield CheckRow(case.name, "(handler)", False, "", note="the handler checked nothing")


def run_cases(plugin: str, folders: Sequence[str | os.PathLike[str]], *, registry: Any = None) -> Iterator[CaseResult]:
    """Run every case below ``folders`` (a folder without ``case.json`` stands for its sub-folders that have one), one result at a time."""
    for folder in folders:
        for case in find_cases(folder):
            yield run_case(case, plugin=plugin, registry=registry)


def find_cases(folder: str | os.PathLike[str]) -> list[Path]:
    """``folder`` itself when it is a case (or holds none, so that the caller reports it), else its sub-folders that are."""
    root = Path(folder)
    if (root / "case.json").exists() or not root.is_dir():
        return [root]
    return sorted(path.parent for path in root.glob("*/case.json")) or [root]


# -- pytest ------------------------------------------------------------------------------------------------------------------


def golden_folder(paper: str = "") -> Path:
    """Folder of the recorded data: ``ZOO_GOLDEN``, default ``../shared/golden`` beside the repository."""
    root = os.environ.get("ZOO_GOLDEN") or str(Path(__file__).resolve().parents[2] / "shared" / "golden")
    return Path(root) / paper


def case_parameters(paper: str, *, local: str | os.PathLike[str] | None = None, kinds: Sequence[str] | None = None) -> list[Any]:
    """Parameters for ``pytest.mark.parametrize``: every case of ``paper`` (marked ``golden``) and those below ``local`` (always run).

    Where the recorded data is absent there is one parameter that skips and says so:

        @pytest.mark.parametrize("case", case_parameters("dc-ae", local=Path(__file__).parent / "data"))
        def test_parity(case):
            result = run_case(case, plugin="dc-ae")
            assert result.passed, result.report()
    """
    import pytest

    def wanted(path: Path) -> bool:
        return kinds is None or json.loads((path / "case.json").read_text(encoding="utf-8")).get("kind") in kinds

    parameters = []
    if local is not None:
        parameters += [pytest.param(path, id=f"local-{path.name}") for path in find_cases(local) if (path / "case.json").exists() and wanted(path)]
    golden = golden_folder(paper)
    if golden.is_dir():
        cases = [path for path in find_cases(golden) if (path / "case.json").exists() and wanted(path)]
        parameters += [pytest.param(path, id=path.name, marks=pytest.mark.golden) for path in cases]
    else:
        reason = f"no recorded data at {golden} (set ZOO_GOLDEN)"
        parameters.append(pytest.param(golden, id="golden", marks=[pytest.mark.golden, pytest.mark.skip(reason=reason)]))
    return parameters
