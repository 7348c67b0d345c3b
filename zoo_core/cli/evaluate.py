"""``zoo parity``, ``zoo eval``, ``zoo claims`` and ``zoo bench``."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from zoo_core.errors import InputError

if TYPE_CHECKING:
    from zoo_core.parity import CaseResult


def parity(
    plugin: Annotated[str, typer.Argument(help="Plugin whose handlers run the cases, e.g. dc-ae.")],
    cases: Annotated[list[Path], typer.Argument(metavar="CASE_DIR...", help="Case folders, or folders of them.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run recorded reference cases: a row per tensor; exit code 1 when one is off, 2 when a case cannot be run."""
    from zoo_core.parity import run_cases

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


def _print_case(result: CaseResult) -> None:
    seconds = f"{result.case} [{result.kind or '?'}] {result.seconds:.1f} s"
    if result.unusable:
        typer.echo(f"{seconds}\nunusable: {result.unusable}")
        return
    rows = []
    for row in result.rows:
        numbers = ["-" if value is None else f"{value:.2e}" for value in (row.error, row.error_std)]
        rows.append([row.check, *numbers, row.tolerance, f"{'pass' if row.passed else 'FAIL'} {row.note}".strip()])
    _table(seconds, ["tensor", ">max abs error", ">error/std", "tolerance", "result"], rows)


# -- eval --------------------------------------------------------------------------------------------------------------------


class _RunByDefault(TyperGroup):
    """``zoo eval MODEL EVALUATOR`` is ``zoo eval run MODEL EVALUATOR``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


eval_app = typer.Typer(cls=_RunByDefault, no_args_is_help=True, help="Evaluate a model, compare results, write a report.")


@eval_app.command("run")
def evaluate(
    model: Annotated[str | None, typer.Argument(help="Name or path of the model.")] = None,
    evaluator: Annotated[str | None, typer.Argument(help="Name of the evaluator.")] = None,
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Options of the evaluator; load.KEY=VALUE goes to zoo.load.")] = None,
    output: Annotated[Path | None, typer.Option(help="Run folder [default: runs/eval/MODEL--EVALUATOR].")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first items.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the whole run.")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw away what the folder holds.")] = False,
    rescore: Annotated[bool, typer.Option("--rescore", help="Score the stored samples again, without the model.")] = False,
    repeat: Annotated[Path | None, typer.Option(help="Run the evaluation of this result file again and compare.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Evaluate MODEL with EVALUATOR; a run that was interrupted goes on with the same command."""
    from zoo_core.evaluation import runner

    with _progress(not as_json) as progress:
        if repeat is not None:
            old, new = runner.repeat(repeat, output=output, progress=progress)
            raise typer.Exit(_print_repeat(old, new, as_json))
        if model is None or evaluator is None:
            raise InputError("an evaluation needs a model and an evaluator", fix="zoo eval MODEL EVALUATOR [key=value ...]")
        options, load_options = split_settings(settings or [])
        result = runner.run_evaluation(
            model, evaluator, options, load_options=load_options, output=output, seed=seed, limit=limit, fresh=fresh, rescore=rescore, progress=progress
        )
    if as_json:
        typer.echo(json.dumps(result, indent=1))
    else:
        _print_metrics(result)


def split_settings(settings: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """``["steps=4", "load.dtype=bfloat16"]`` -> options of the evaluator and of ``zoo.load``."""
    from omegaconf import OmegaConf

    for text in settings:
        if "=" not in text or text.startswith("="):
            raise InputError(f"setting {text!r} is not of the form key=value", fix="for example limit=8")
    options: Any = OmegaConf.to_container(OmegaConf.from_dotlist(settings), resolve=False)
    loading = options.pop("load", {})
    if not isinstance(loading, dict):
        raise InputError("load=... is no group", fix="load.dtype=bfloat16")
    return options, loading


@eval_app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A.json", help="Result file or run folder.")],
    second: Annotated[Path, typer.Argument(metavar="B.json", help="Result file or run folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Differences B - A with 95 % intervals, paired where sample ids match."""
    from zoo_core.evaluation import compare_results, read_result

    a, b = read_result(first), read_result(second)
    outcome = compare_results(a, b)
    if as_json:
        typer.echo(json.dumps(outcome, indent=1))
        return
    _print_differences(outcome, f"{a['model']['name']}", f"{b['model']['name']}")


@eval_app.command()
def report(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT...", help="Result files or run folders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help=".html (self-contained) or .md.")] = Path("report.html"),
    pictures: Annotated[int, typer.Option(min=0, help="Samples shown per result.")] = 24,
) -> None:
    """Write a report with tables and pictures."""
    from zoo_core.evaluation import write_report

    typer.echo(f"wrote {write_report(list(results), output, pictures=pictures)}")


def _print_metrics(result: dict[str, Any]) -> None:
    from zoo_core.evaluation.report import metric_text

    rows = [
        [name + {"higher": " ↑", "lower": " ↓"}.get(metric["better"] or "", ""), metric_text(metric), str(metric["n"])]
        for name, metric in result["metrics"].items()
    ]
    _table(f"{result['model']['name']} · {result['evaluator']['name']}", ["metric", ">value [95 % interval]", ">n"], rows)
    for note in result["notes"]:
        typer.echo(f"note: {note}")


def _print_differences(outcome: dict[str, Any], a: str, b: str) -> None:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.4g}"

    rows = []
    for row in outcome["rows"]:
        interval = "" if row["low"] is None else f" [{row['low']:.3g}, {row['high']:.3g}]"
        rows.append([row["metric"], number(row["a"]), number(row["b"]), number(row["difference"]) + interval, f"{row['method']} n={row['n']}", row["verdict"]])
    _table("", ["metric", f">{a}", f">{b}", ">difference [95 %]", "method", "second is"], rows)
    for warning in outcome["warnings"]:
        typer.echo(f"warning: {warning}")


def _print_repeat(old: dict[str, Any], new: dict[str, Any], as_json: bool) -> int:
    """0 when every metric is equal or inside the recorded interval, else 1."""
    rows, good = [], True
    for name, metric in old["metrics"].items():
        again = new["metrics"].get(name, {}).get("value")
        low, high = metric.get("low"), metric.get("high")
        if again == metric["value"]:
            verdict = "identical"
        elif again is not None and low is not None and low <= again <= high:
            verdict = "inside the interval"
        else:
            verdict, good = "differs", good and metric.get("better") is None and name.startswith("seconds")
        rows.append({"metric": name, "recorded": metric["value"], "repeated": again, "verdict": verdict})
    if as_json:
        typer.echo(json.dumps({"repeated": good, "rows": rows, "result": new}, indent=1))
    else:
        _table("repeat", ["metric", ">recorded", ">repeated", "verdict"], [[str(value) for value in row.values()] for row in rows])
    return 0 if good else 1


# -- claims and benchmarks ---------------------------------------------------------------------------------------------------


def claims(
    plugin: Annotated[str | None, typer.Argument(help="Only this plugin's claims.")] = None,
    run: Annotated[list[str] | None, typer.Option("--run", metavar="NAME", help="Measure this claim ('all': every one that can be measured here).")] = None,
    budget: Annotated[float, typer.Option(min=0.1, help="Seconds per measurement.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Folder of result files [default: benchmarks/results/claims in a checkout, else runs/claims].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The papers' headline numbers: claimed, measured here, and what a measurement would need."""
    from zoo_core import claims as ledger

    specs = ledger.claims(plugin)
    folder = output or ledger.default_folder()
    failed = False
    if run:
        chosen = [spec for spec in specs if spec.measure and not ledger.missing(spec.needs)] if run == ["all"] else ledger.select(specs, run)
        for spec in chosen:
            typer.echo(f"measuring {spec.name} ...", err=True)
            record = ledger.measure(spec, folder=folder, seconds=budget, seed=seed, log=lambda text: typer.echo(text, err=True))
            if record["value"] is None:
                typer.echo(f"{spec.name}: {record['status']} {record['note']}".rstrip(), err=True)
            failed = failed or record["status"] == "failed"
        specs = chosen
    rows = ledger.table(specs, folder)
    if as_json:
        typer.echo(json.dumps(ledger.rows_json(rows), indent=1))
    elif not rows:
        typer.echo("no claims" + (f" of {plugin}" if plugin else ": no plugin is installed"))
    else:
        _table("", ["claim", ">paper", ">here", "status", "setting, note"], [_claim_cells(row) for row in rows])
    raise typer.Exit(1 if failed else 0)


def _claim_cells(row: Any) -> list[str]:
    verdict = {True: " (holds)", False: " (does not hold)", None: ""}[row.holds]
    here = "-" if row.value is None else f"{row.value:.4g} {row.unit}".strip()
    where = "; ".join(part for part in (row.setting, f"here: {row.scaled}" if row.value is not None and row.scaled else "", row.note) if part)
    return [row.name, f"{row.paper} {row.unit}".strip(), here, row.status + verdict, where]


def bench(
    name: Annotated[str | None, typer.Argument(help="Benchmark; without it, the list of all.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Interleaved rounds.")] = 7,
    budget: Annotated[float, typer.Option(min=0.1, help="Seconds in all.")] = 120.0,
    seed: Annotated[int, typer.Option(help="Seed of the inputs.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Folder of result files [default: benchmarks/results in a checkout, else runs/benchmarks].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Benchmarks against what one would otherwise use, side by side in one run."""
    from zoo_core.registry import get_registry

    registry = get_registry()
    if name is None:
        names = registry.names("benchmarks")
        typer.echo(json.dumps(names, indent=1) if as_json else "\n".join(names) or "no benchmark is installed")
        return
    from zoo_core.bench import run_benchmark

    record = run_benchmark(
        registry.get("benchmarks", name),  # type: ignore[arg-type]
        folder=output,
        seconds=budget,
        repeats=repeats,
        seed=seed,
        log=lambda text: typer.echo(text, err=True),
    )
    if as_json:
        typer.echo(json.dumps(record, indent=1))
        return
    columns = list(dict.fromkeys(key for row in record["rows"] for key in row))
    cells = [[f"{row[key]:.4g}" if isinstance(row.get(key), float) else str(row.get(key, "")) for key in columns] for row in record["rows"]]
    _table(f"{name} on {record['device']}", [column if column in ("cell", "other") else f">{column}" for column in columns], cells)


# -- printing ----------------------------------------------------------------------------------------------------------------


def _table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A plain table; a column whose name starts with ``>`` is aligned to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(Text(column.removeprefix(">")), justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 240  # a pipe has no edge
    console.print(table)


@contextlib.contextmanager
def _progress(enabled: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """A progress bar with ETA on a terminal's standard error; nothing elsewhere."""
    if not enabled or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def show(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(phase, total=total)
            bar.update(tasks[phase], completed=done)

        yield show
