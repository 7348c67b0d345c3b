"""``zoo parity``, ``zoo eval``, ``zoo claims`` and ``zoo bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def parity(
    plugin: Annotated[str, typer.Argument(help="Plugin whose handlers run the cases, e.g. dc-ae.")],
    cases: Annotated[list[Path], typer.Argument(metavar="CASE_DIR...", help="Case folders, or folders of them.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run recorded reference cases: a row per tensor; exit code 1 when one is off, 2 when a case cannot be run."""
    from zoo_core.parity import CaseResult, run_cases

    results: list[CaseResult] = []
    for result in run_cases(plugin, cases):
        results.append(result)
        if not as_json:
            _print_case(result)
    passed = all(result.passed for result in results)
    unusable = [result for result in results if result.unusable]
    rows = [row for result in results for row in result.rows]
    failed = sum(not row.passed for row in rows)
    if as_json:
        typer.echo(
            json.dumps(
                {"schema": 1, "plugin": plugin, "passed": passed, "checks": len(rows), "failed": failed, "cases": [r.to_dict() for r in results]}, indent=1
            )
        )
    else:
        extra = f", {len(unusable)} unusable" if unusable else ""
        typer.echo(f"{plugin}: {len(rows)} checks in {len(results)} cases, {failed} failed{extra}")
    raise typer.Exit(1 if failed else 2 if unusable else 0 if passed else 1)


def _print_case(result: object) -> None:
    from rich.console import Console
    from rich.table import Table

    from zoo_core.parity import CaseResult

    assert isinstance(result, CaseResult)
    console = Console()
    title = f"{result.case} [{result.kind or '?'}] {result.seconds:.1f} s".replace("[", "\\[")
    if result.unusable:
        console.print(title, style="bold")
        console.print(f"unusable: {result.unusable}", style="red", markup=False, highlight=False, soft_wrap=True)
        return
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column, justify in (("tensor", "left"), ("max abs error", "right"), ("error/std", "right"), ("tolerance", "right"), ("result", "left")):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in result.rows:
        verdict = "[green]pass[/]" if row.passed else "[red]FAIL[/]"
        numbers = ["-" if value is None else f"{value:.2e}" for value in (row.error, row.error_std)]
        note = row.note.replace("[", "\\[")
        table.add_row(row.check.replace("[", "\\["), *numbers, row.tolerance, f"{verdict} {note}".strip())
    console.print(table)
