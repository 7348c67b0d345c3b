"""Implementations tried in a child process, so that a crash or a hang there does no harm here; what fails is quarantined.

``python -m zoo_kernels.probe JSON`` is the child: it prints one JSON line before and after every case, so that the parent knows which case killed it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from zoo_kernels.parity import Case, Verdict
from zoo_kernels.quarantine import quarantine, release_one, trust, trusted
from zoo_kernels.registry import registry
from zoo_kernels.spec import KernelImpl, Query
from zoo_kernels.triton_support import interpreting

SWITCH = "ZOO_KERNELS_PROBE"
"""``ZOO_KERNELS_PROBE=0`` switches the check before first use off."""
SECONDS = 300.0


@dataclass
class Report:
    """Verdicts of one implementation on one device.  ``died``: how the child ended, when it did not end well."""

    op: str
    implementation: str
    device: str
    verdicts: list[Verdict] = field(default_factory=list)
    died: str = ""

    @property
    def failures(self) -> list[Verdict]:
        return [v for v in self.verdicts if not v.passed]

    @property
    def checked(self) -> int:
        """Cases that ran (were not skipped)."""
        return sum(not v.skipped for v in self.verdicts)

    @property
    def passed(self) -> bool:
        return not self.died and not self.failures

    @property
    def problem(self) -> str:
        """One line ("" when all is well)."""
        if self.died:
            return self.died
        if self.failures:
            worst = self.failures[0]
            what = worst.note or f"error {worst.error:.2g} above {worst.tolerance:.2g}"
            return f"{len(self.failures)} of {self.checked} parity cases failed, first {worst.case}: {what}"
        return ""


def verify(
    op: str,
    implementation: str,
    device: str = "cpu",
    *,
    dtypes: Sequence[str] | None = None,
    compiled: bool = False,
    seconds: float = SECONDS,
    environment: Mapping[str, str] | None = None,
    remember: bool = True,
) -> Report:
    """Run every parity case of one implementation in a child process; failures are quarantined, success lifts a quarantine.

    Args:
        environment: Added to the child's (``{"TRITON_INTERPRET": "1"}`` runs Triton kernels on a CPU; such verdicts are not remembered).
        remember: Write the outcome into the quarantine file.
    """
    item = registry.implementation(op, implementation)
    report = Report(op, implementation, device)
    request = {"op": op, "implementation": implementation, "device": device, "dtypes": list(dtypes) if dtypes else None, "compiled": compiled}
    request["register"] = [origin for origin in {item.origin, registry.origin(op)} if origin]
    child = [sys.executable, "-m", "zoo_kernels.probe", json.dumps(request)]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    settings = {**os.environ, "PYTHONPATH": path, **(environment or {})}
    try:
        done = subprocess.run(child, capture_output=True, text=True, timeout=seconds, env=settings, check=False)
        code, output, errors = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as error:
        code, output, errors = None, _text(error.stdout), ""
    running = _read(output, report)
    if code is None:
        report.died = f"did not finish within {seconds:.0f} s{f' (in {running})' if running else ''}"
    elif code:
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        last = errors.strip().splitlines()[-1] if errors.strip() else ""
        report.died = f"child process ended with {how}{f' in {running}' if running else ''}{f': {last}' if last and code > 0 else ''}"
    if remember and not environment and not interpreting():
        where = torch.device(device)
        if not report.passed:
            quarantine(item, where, report.problem)
        elif report.checked:
            release_one(item, where)
            trust(item, where)
    return report


def first_use(implementation: KernelImpl, query: Query) -> list[str]:
    """Reasons against an implementation that asks to be probed, after its first check on this machine (empty: none, or it need not be checked)."""
    if not implementation.probe or os.environ.get(SWITCH) == "0" or interpreting() or trusted(implementation, query.device):
        return []
    report = verify(implementation.op, implementation.name, query.device.type, dtypes=[str(query.dtype).removeprefix("torch.")])
    return [] if report.passed else [f"failed its check on this machine: {report.problem}"]


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def _read(output: str, report: Report) -> str:
    """Fill in the verdicts; returns the case that had begun and not ended."""
    running = ""
    for line in output.splitlines():
        if not line.startswith('{"probe"'):
            continue
        message = json.loads(line)["probe"]
        if "begin" in message:
            running = message["begin"]
        else:
            message["case"] = Case(**message["case"])
            report.verdicts.append(Verdict(**message))
            running = ""
    return running


def _child(request: Mapping[str, Any]) -> None:
    from zoo_kernels import parity

    for origin in request["register"]:
        registry.register_from(origin)
    found: Iterable[Case] = parity.cases(request["op"], request["implementation"], request["device"], dtypes=request["dtypes"], compiled=request["compiled"])
    for case in found:
        print(json.dumps({"probe": {"begin": str(case)}}), flush=True)
        print(json.dumps({"probe": parity.run(case).to_dict()}), flush=True)


if __name__ == "__main__":
    _child(json.loads(sys.argv[1]))
