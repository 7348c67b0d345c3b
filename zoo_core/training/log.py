"""The log: JSON lines (always), TensorBoard (when installed), a progress bar or plain lines on standard error."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


class Log:
    """Writer of one run's log.

    Args:
        folder: Run folder; ``log.jsonl`` and ``tensorboard/`` are made below it.
        steps: Optimiser steps in all, for the progress and its ETA.
        start: Step this process begins at.
        enabled: False in all processes but the main one.
    """

    def __init__(self, folder: Path, *, steps: int, start: int, enabled: bool = True, tensorboard: bool = True, title: str = "train") -> None:
        self.enabled, self.steps, self.first = enabled, steps, start
        self.began = time.monotonic()
        self._file: Any = None
        self._board: Any = None
        self._progress: Any = None
        self._spoke = 0.0
        if not enabled:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "log.jsonl"
        torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        self._file = path.open("a", encoding="utf-8")
        if torn:  # a killed process left half a line
            self._file.write("\n")
        if tensorboard:
            self._board = _board(folder / "tensorboard", start)
        if sys.stderr.isatty():
            self._progress = _bar(title, steps, start)

    def write(self, event: str, step: int, values: dict[str, Any]) -> None:
        """One line; numbers also go to TensorBoard."""
        if not self.enabled:
            return
        row = {"event": event, "step": step, "seconds": round(time.monotonic() - self.began, 3), **values}
        self._file.write(json.dumps(row, default=str) + "\n")
        self._file.flush()
        if self._board is not None and event in ("train", "eval"):
            for key, value in values.items():
                if isinstance(value, (int, float)):
                    self._board.add_scalar(f"{event}/{key}", value, step)

    def show(self, step: int, values: dict[str, float]) -> None:
        """Progress with the newest scalars; without a terminal at most one line in five seconds (and the last)."""
        if not self.enabled:
            return
        text = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        if self._progress is not None:
            bar, task = self._progress
            bar.update(task, completed=step, text=text)
            return
        now = time.monotonic()
        if now - self._spoke < 5.0 and step < self.steps:
            return
        self._spoke = now
        done = step - self.first
        rate = (now - self.began) / done if done else 0.0
        print(f"step {step}/{self.steps}  {text}  {rate:.3g} s/step  eta {_clock(rate * (self.steps - step))}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A line for people."""
        if not self.enabled:
            return
        if self._progress is not None:
            self._progress[0].console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._progress is not None:
            self._progress[0].stop()
            self._progress = None
        if self._board is not None:
            self._board.close()
            self._board = None
        if self._file is not None:
            self._file.close()
            self._file = None


def _board(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=start + 1 if start else None)


def _bar(title: str, steps: int, start: int) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    bar = Progress(*columns, console=Console(stderr=True), speed_estimate_period=120)
    task = bar.add_task(title, total=steps, completed=start, text="")
    bar.start()
    return bar, task


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def read_log(output: str | Path, event: str | None = "train") -> list[dict[str, Any]]:
    """Rows of a run's ``log.jsonl`` in order of steps.

    A run that was killed logs some steps twice: what a later process repeated replaces the earlier rows.  A half-written last line is ignored.
    """
    rows: list[dict[str, Any]] = []
    for line in (Path(output) / "log.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row["event"] == "start":
            rows = [old for old in rows if old["step"] <= row["step"]]
        rows.append(row)
    return [row for row in rows if event is None or row["event"] == event]
