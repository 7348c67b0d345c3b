"""``zoo kernels``: which implementations of the numeric operations there are, which one a call gets and why, whether they are right here, and how fast."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo_core.cli.common import print_json, style, table, write_atomically
from zoo_core.errors import DeviceError, InputError, KernelError

if TYPE_CHECKING:
    import torch

kernels_app = typer.Typer(help="Kernel implementations: list, explain, verify, bench.", no_args_is_help=True, add_completion=False)
app = kernels_app

Op = Annotated[list[str] | None, typer.Option("--op", help="Operation; may be repeated [default: all].")]
Device = Annotated[str, typer.Option(help="cpu or cuda [default: cuda when there is one].")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@kernels_app.command("list")
def list_command(as_json: Json = False, device: Device = "auto") -> None:
    """Operations and their implementations, best first, and whether each can run on this machine."""
    rows = []
    with _friendly():
        registry, where = _registry(), _device(device)
        from zoo_kernels.selection import survey
        from zoo_kernels.spec import Query

        for op in registry:
            for item, reasons in survey(op, Query(where, _dtype("float32"))):
                rows.append({"op": op, "implementation": item.name, "priority": item.priority, "backward": item.backward, "compile_safe": item.compile_safe,
                             "deterministic": item.deterministic, "reasons": reasons, "signature": registry.op(op).signature})  # fmt: skip
    if as_json:
        print_json({"schema": 1, "device": str(where), "implementations": rows})
        return
    last = ""
    cells = []
    for row in rows:
        flags = [word for word, on in (("gradients", row["backward"]), ("compile", row["compile_safe"])) if on]
        cells.append([row["op"] if row["op"] != last else "", row["implementation"], ", ".join(flags), "; ".join(row["reasons"]) or "runs here"])
        last = row["op"]
    table(["operation", "implementation", "can", f"on {where}"], cells)


@kernels_app.command()
def explain(
    name: Annotated[str | None, typer.Argument(help="Operation or model [default: all operations].", metavar="[OP|MODEL]")] = None,
    device: Device = "auto",
    dtype: Annotated[str | None, typer.Option(help="Of the inputs [default: float32; for a model its published precision].")] = None,
    grad: Annotated[bool, typer.Option("--grad", help="Gradients will be needed.")] = False,
    compiled: Annotated[bool, typer.Option("--compiled", help="Inside torch.compile.")] = False,
    hint: Annotated[list[str] | None, typer.Option(help="Shape fact name=value, such as head_dim=32; may be repeated.")] = None,
    choice: Annotated[str | None, typer.Option(help="As if this implementation were forced.")] = None,
    as_json: Json = False,
) -> None:
    """Which implementation a model would get for a call, and the reasons against the others.  For a model: for every operation that its plugin binds."""
    with _friendly():
        registry, where = _registry(), _device(device)
        from zoo_kernels.selection import choose, survey
        from zoo_kernels.spec import Query

        card = _card(name, registry)
        wanted: dict[str, Any] = {op: {} for op in ([name] if name else registry)} if card is None else dict(card.get("kernels") or {})
        precision = dtype or _precision(card)
        found = {}
        for op, facts in wanted.items():
            query = Query(where, _dtype(precision), grad, {**facts, **_hints(hint or [])}, compiled)
            found[op] = (choose(op, query, choice, probe=False)[1], survey(op, query), query)
    if as_json:
        about = {} if card is None else {"model": card["name"], "plugin": card["plugin"]}
        print_json({"schema": 1, **about, "device": str(where), "dtype": precision, "choices": [
            {"op": op, "chosen": selected.name, "pinned_by": selected.pinned_by, "hints": dict(query.hints),
             "implementations": {item.name: reasons for item, reasons in everything}}
            for op, (selected, everything, query) in found.items()]})  # fmt: skip
        return
    if card is not None:
        what = f"binds {len(found)} operation{'s' * (len(found) != 1)} when it is built" if found else "declares no operations: it binds none of zoo_kernels"
        print(f"{card['name']} (plugin {card['plugin']}{'' if card['installed'] else ', not installed'}) {what}; on {where} in {precision}:".rstrip())
    for op, (selected, everything, query) in found.items():
        facts = ", ".join(f"{key}={value}" for key, value in query.hints.items())
        print(style(op, "1") + f"  {registry.op(op).signature}" + (f"  [{facts}]" if card is not None and facts else ""))
        for item, reasons in everything:
            mark = "chosen" if item.name == selected.name else "no" if reasons else "can"
            forced = f"forced by {selected.pinned_by}" if mark == "chosen" and selected.pinned_by else ""
            unchecked = "is checked in a child process before its first use" if item.probe and not reasons else ""
            print(f"  {mark:<7} {item.name:<10} {'; '.join(part for part in (*reasons, forced, unchecked) if part)}".rstrip())


def _card(name: str | None, operations: Any) -> dict[str, Any] | None:
    """The catalogue entry when ``name`` is a model and no operation; None for an operation.

    Raises:
        KernelError: It is neither.
    """
    from zoo_core.errors import NameSyntaxError, UnknownNameError
    from zoo_core.names import near_misses
    from zoo_core.registry import get_registry

    if name is None or name in operations:
        return None
    try:
        return get_registry().card(name)
    except (UnknownNameError, NameSyntaxError) as error:
        near = [*near_misses(name, list(operations)), *error.fields.get("suggestions", ())]
        tried = [f"did you mean: {', '.join(near)}"] if near else []
        raise KernelError(f"{name!r} is neither an operation nor a model", tried=tried, fix=f"operations: {', '.join(operations)}; models: zoo list") from error


def _precision(card: dict[str, Any] | None) -> str:
    stated = (card or {}).get("precision") or {}
    return str(stated.get("default") or next(iter(stated.values()), "float32"))


@kernels_app.command()
def verify(
    op: Op = None,
    device: Device = "auto",
    implementation: Annotated[str | None, typer.Option(help="Only this implementation.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="May be repeated [default: all the operation names].")] = None,
    interpret: Annotated[bool, typer.Option("--interpret", help="Run Triton kernels in Triton's interpreter on the CPU (slow).")] = False,
    compiled: Annotated[bool, typer.Option("--compiled", help="Also check that torch.compile keeps one graph (slower).")] = False,
    as_json: Json = False,
) -> None:
    """Compare implementations with the definition on this machine, each in a child process; wrong or crashing ones are quarantined.  Exit code 1 then."""
    reports = []
    with _friendly():
        registry, where = _registry(), _device("cpu" if interpret else device)
        from zoo_kernels.probe import verify as verify_one

        for name in op or list(registry):
            for item in registry.implementations(name):
                if implementation in (None, item.name) and (not interpret or item.name == "triton"):
                    environment = {"TRITON_INTERPRET": "1"} if interpret else None
                    report = verify_one(name, item.name, where.type, dtypes=dtype, compiled=compiled, environment=environment)
                    reports.append(report)
                    if not as_json:
                        _print_report(report)
    failed = [report for report in reports if not report.passed]
    if as_json:
        print_json({"schema": 1, "device": where.type, "passed": not failed, "reports": [
            {"op": r.op, "implementation": r.implementation, "passed": r.passed, "checked": r.checked, "problem": r.problem,
             "verdicts": [v.to_dict() for v in r.verdicts]} for r in reports]})  # fmt: skip
    else:
        ran = sum(report.checked > 0 for report in reports)
        print(f"{sum(r.checked for r in reports)} cases of {ran} implementations, {len(failed)} implementations failed, {len(reports) - ran} cannot run here")
    raise typer.Exit(1 if failed else 0)


@kernels_app.command()
def bench(
    op: Op = None,
    device: Device = "auto",
    dtype: Annotated[list[str] | None, typer.Option(help="May be repeated [default: float32; on a GPU float32 and bfloat16].")] = None,
    size: Annotated[list[str] | None, typer.Option(help="small, large; may be repeated [default: both].")] = None,
    backward: Annotated[bool, typer.Option("--backward", help="Also time forward plus gradients.")] = False,
    seconds: Annotated[float, typer.Option(help="Time for each measurement.")] = 0.5,
    output: Annotated[Path | None, typer.Option("--json", help="Also write the rows to this file.")] = None,
) -> None:
    """Measure what this machine can do, then how near each implementation comes, and how it compares with the call a user would make otherwise."""
    with _friendly():
        registry, where = _registry(), _device(device)
        for name in op or ():
            registry.op(name)
        from zoo_kernels.bench import SIZES, environment
        from zoo_kernels.bench import bench as rows_of
        from zoo_kernels.roofline import measure

        dtypes = tuple(dtype or (("float32", "bfloat16") if where.type == "cuda" else ("float32",)))
        for name in dtypes:
            _dtype(name)
        if unknown := set(size or ()) - set(SIZES):
            raise InputError(f"size {sorted(unknown)[0]!r} is unknown", fix=f"--size {' or --size '.join(SIZES)}")
        machine = measure(where.type, dtypes, seconds=seconds)
        rates = ", ".join(f"{name} product {rate / 1e9:,.0f} GFLOP/s" for name, rate in machine.rates.items())
        print(f"{machine.name}, {machine.threads} threads: copy {machine.bandwidth / 1e9:.1f} GB/s, {rates}")
        rows = list(rows_of(machine, op or (), dtypes=dtypes, sizes=tuple(size or SIZES), backward=backward, seconds=seconds))
        about = environment(machine)
    if about["interpreted"]:
        print("TRITON_INTERPRET=1: times of Triton kernels say nothing")
    cells = [[r.op, r.shapes, r.dtype, r.direction, f"{r.implementation} ({r.note})" if r.note else r.implementation, f"{r.seconds * 1e3:.3f}",
              f"{r.gigabytes:.2f}", f"{r.gigaflops:.1f}", f"{r.share:.0%}", f"{r.speedup:.2f}x" if r.speedup else "-"] for r in rows]  # fmt: skip
    table(["operation", "shapes", "dtype", "direction", "implementation", "ms", "GB/s", "GFLOP/s", "of ceiling", "speed"], cells, right=(5, 6, 7, 8, 9))
    if output is not None:
        text = json.dumps({"schema": 1, **about, "rows": [row.to_dict() for row in rows]}, indent=1)
        write_atomically(output, lambda path: Path(path).write_text(text + "\n", encoding="utf-8"))


@kernels_app.command()
def quarantine(
    clear: Annotated[bool, typer.Option("--clear", help="Forget the records, so that the implementations are tried again.")] = False,
    op: Annotated[str | None, typer.Option(help="Only of this operation.")] = None,
    as_json: Json = False,
) -> None:
    """Implementations that were wrong or crashed on this machine."""
    from zoo_kernels import quarantine as room

    records = {key: note for key, note in room.records().items() if op is None or key.split("|")[0] == op}
    if clear:
        print(f"{room.release(op)} records forgotten")
    elif as_json:
        print_json({"schema": 1, "file": str(room.path()), "records": records})
    elif not records:
        print("nothing is quarantined")
    else:
        table(["operation", "implementation", "key", "why"], [[*key.split("|")[:2], "|".join(key.split("|")[2:]), note] for key, note in records.items()])


# -- shared ----------------------------------------------------------------------------------------------------------------------------


@contextmanager
def _friendly() -> Iterator[None]:
    """Errors of the kernels package as errors of the zoo."""
    from zoo_kernels.errors import KernelError as Theirs

    try:
        yield
    except Theirs as error:
        raise KernelError(error.what, tried=[f"{name}: {'; '.join(why)}" for name, why in error.reasons.items()], fix=error.fix) from error


def _registry() -> Any:
    """The operations of the kernels package and of every plugin that brings some."""
    from zoo_kernels.registry import registry

    from zoo_core.loading import register_operations
    from zoo_core.registry import get_registry

    register_operations(get_registry())
    return registry


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name!r} is unknown", fix="--device cpu") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError("this machine has no usable CUDA device", fix="--device cpu")
    return device


def _dtype(name: str) -> torch.dtype:
    import torch

    value = getattr(torch, name, None)
    if not isinstance(value, torch.dtype):
        raise InputError(f"dtype {name!r} is unknown", fix="--dtype float32")
    return value


def _hints(pairs: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign:
            raise InputError(f"--hint {pair!r} is not of the form name=value", fix="--hint head_dim=32")
        found[name] = int(value) if value.lstrip("-").isdigit() else value
    return found


def _print_report(report: Any) -> None:
    word = "FAIL" if not report.passed else "pass" if report.checked else "-"
    worst: Callable[[Any], float] = lambda v: v.error / v.tolerance if v.tolerance else 0.0  # noqa: E731
    ran = [v for v in report.verdicts if not v.skipped]
    skipped = report.verdicts[0].skipped if report.verdicts and not ran else ""
    near = max(ran, key=worst, default=None)
    detail = report.problem or skipped or (f"{report.checked} cases, nearest to its tolerance: {near.error:.1e} of {near.tolerance:.0e}" if near else "")
    print(f"{style(word, '31' if word == 'FAIL' else '32' if word == 'pass' else '2')}  {report.op} {report.implementation}: {detail}")
