"""A readable report of evaluation results: Markdown or HTML, with pictures, without remote assets."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo_core.errors import EvaluationError
from zoo_core.evaluation.results import read_result
from zoo_core.evaluation.runner import read_samples
from zoo_core.interfaces import Sample

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
STYLE = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0}th,td{padding:.3rem .8rem;text-align:left;border-bottom:1px solid #8884;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums}.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));gap:1rem}
figure{margin:0}img{max-width:100%;height:auto;border-radius:4px}figcaption{font-size:.85rem;overflow-wrap:anywhere}code{overflow-wrap:anywhere}
"""


def write_report(results: Sequence[str | Path], output: str | Path, *, pictures: int = 24, thumbnail: int = 256) -> Path:
    """Write one report on one or more results.

    Args:
        results: ``result.json`` files or run folders; pictures are shown where the run folder lies beside the result.
        output: ``.html`` (one self-contained file) or ``.md`` (the pictures of each result in one grid beside it).
        pictures: Samples shown per result: the first ones, or half best and half worst where a score ranks them.
        thumbnail: Longest side in pixels.
    """
    output = Path(output)
    loaded = [(read_result(path), Path(path) if Path(path).is_dir() else Path(path).parent) for path in results]
    if not loaded:
        raise EvaluationError("a report needs at least one result", fix="zoo eval report RESULT.json --output report.html")
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix in (".html", ".htm"):
        text = _html(loaded, pictures, thumbnail)
    elif output.suffix == ".md":
        text = _markdown(loaded, output, pictures, thumbnail)
    else:
        raise EvaluationError(f"report format {output.suffix!r} is unknown", fix="--output report.html or report.md")
    temporary = output.with_name(f".{output.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(output)
    return output


def image_grid(files: Sequence[Path], *, side: int = 256, columns: int = 6) -> Any:
    """One picture of many (PIL), each fitted into a square of ``side`` pixels."""
    from PIL import Image, ImageOps

    columns = min(columns, len(files))
    rows = -(-len(files) // columns)
    sheet = Image.new("RGB", (columns * (side + 4), rows * (side + 4)), (128, 128, 128))
    for index, path in enumerate(files):
        picture = ImageOps.contain(Image.open(path).convert("RGB"), (side, side))
        x, y = index % columns, index // columns
        sheet.paste(picture, (x * (side + 4) + 2 + (side - picture.width) // 2, y * (side + 4) + 2 + (side - picture.height) // 2))
    return sheet


def metric_text(metric: dict[str, Any]) -> str:
    """``27.31 [26.90, 27.75]``."""
    value = metric["value"]
    text = "-" if value is None else f"{value:.4g}"
    if metric.get("low") is not None and metric.get("high") is not None:
        text += f" [{metric['low']:.4g}, {metric['high']:.4g}]"
    return text


def _facts(result: dict[str, Any]) -> list[tuple[str, str]]:
    model, machine = result["model"], result["machine"]
    weights = ", ".join(f"{w['file']} sha256 {w['sha256'][:16] or 'unknown'}" for w in model.get("weights", ())) or "none (random or not file-based)"
    rows = [
        ("model", f"{model['name']} ({model.get('parameters', 0):,} parameters)"),
        ("revision", str(model.get("revision") or "not pinned")),
        ("weights", weights),
        ("precision, device", ", ".join(f"{k}: {v}" for k, v in (model.get("dtype") or {}).items()) + f" on {model.get('device')}"),
        ("evaluator", f"{result['evaluator']['name']} version {result['evaluator']['version']} {result['evaluator'].get('options') or ''}"),
        ("samples", f"{result['samples']['evaluated']} of {result['samples']['wanted']}, data {result['samples']['fingerprint'][:16]}"),
        ("seed, date", f"{result['seed']}, {result['date']}"),
        ("machine", f"{machine.get('cpu')}, {machine.get('cores')} cores" + "".join(f", {gpu}" for gpu in machine.get("gpus", ()))),
        ("versions", ", ".join(f"{k} {v}" for k, v in result["versions"].items())),
        ("command", str(result.get("command", ""))),
    ]
    return rows + [("note", note) for note in result.get("notes", ())]


def _chosen(result: dict[str, Any], folder: Path, count: int) -> list[tuple[Sample, list[Path]]]:
    """Samples with pictures; ranked by the first metric that has a direction and per-sample scores."""
    if not (folder / "samples.jsonl").exists():
        return []
    shown = []
    for sample in read_samples(folder):
        files = [folder / name for name in sample.files.values() if name.lower().endswith(IMAGE_SUFFIXES)]
        files = [path for path in files if path.resolve().is_relative_to(folder.resolve()) and path.exists()]
        if files:
            shown.append((sample, files))
    ranking = next(
        (n for n, m in result["metrics"].items() if m.get("better") and any(s.scores.get(n) is not None for s, _ in shown) and not n.startswith("seconds")),
        None,
    )
    if ranking is None or len(shown) <= count:
        return shown[:count]
    sign = -1 if result["metrics"][ranking]["better"] == "higher" else 1
    ordered = sorted((pair for pair in shown if pair[0].scores.get(ranking) is not None), key=lambda pair: sign * pair[0].scores[ranking])
    half = max(1, count // 2)
    return ordered[:half] + ordered[-(count - half) :]


def _caption(sample: Sample) -> str:
    prompt = str(sample.inputs.get("prompt", "")) or sample.id
    scores = ", ".join(f"{key} {value:.3g}" for key, value in sample.scores.items() if value is not None)
    return f"{prompt} ({scores})" if scores else prompt


def _html(loaded: Sequence[tuple[dict[str, Any], Path]], count: int, side: int) -> str:
    head = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>Evaluation report</title>"
    parts = [f"{head}<style>{STYLE}</style>"]
    parts.append("<h1>Evaluation report</h1><table><tr><th>model<th>evaluator<th>metric<th>value [95 % interval]<th>n")
    for result, _ in loaded:
        for name, metric in result["metrics"].items():
            cells = [result["model"]["name"], result["evaluator"]["name"], name + {"higher": " ↑", "lower": " ↓"}.get(metric.get("better") or "", "")]
            parts.append(
                "<tr>"
                + "".join(f"<td>{html.escape(cell)}" for cell in cells)
                + f"<td class=n>{html.escape(metric_text(metric))}<td class=n>{metric.get('n', '')}"
            )
    parts.append("</table>")
    for result, folder in loaded:
        parts.append(f"<h2>{html.escape(result['model']['name'])} · {html.escape(result['evaluator']['name'])}</h2><table>")
        parts += [f"<tr><th>{html.escape(key)}<td><code>{html.escape(value)}</code>" for key, value in _facts(result)]
        parts.append("</table>")
        chosen = _chosen(result, folder, count)
        if chosen:
            parts.append("<div class=grid>")
            for sample, files in chosen:
                images = "".join(f"<img src='{_data_uri(path, side)}' alt=''>" for path in files)
                parts.append(f"<figure>{images}<figcaption>{html.escape(_caption(sample))}</figcaption></figure>")
            parts.append("</div>")
    return "\n".join(parts) + "</html>\n"


def _data_uri(path: Path, side: int) -> str:
    from PIL import Image

    picture = Image.open(path).convert("RGB")
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG" if max(picture.size) <= 96 else "JPEG", **({} if max(picture.size) <= 96 else {"quality": 88}))
    kind = "png" if max(picture.size) <= 96 else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _markdown(loaded: Sequence[tuple[dict[str, Any], Path]], output: Path, count: int, side: int) -> str:
    lines = ["# Evaluation report", "", "| model | evaluator | metric | value [95 % interval] | n |", "|---|---|---|---:|---:|"]
    for result, _ in loaded:
        for name, metric in result["metrics"].items():
            arrow = {"higher": " ↑", "lower": " ↓"}.get(metric.get("better") or "", "")
            cells = [_cell(result["model"]["name"]), _cell(result["evaluator"]["name"]), _cell(name) + arrow, metric_text(metric), str(metric.get("n", ""))]
            lines.append(f"| {' | '.join(cells)} |")
    for number, (result, folder) in enumerate(loaded):
        lines += ["", f"## {_cell(result['model']['name'])} · {_cell(result['evaluator']['name'])}", "", "| | |", "|---|---|"]
        lines += [f"| {_cell(key)} | {_cell(value)} |" for key, value in _facts(result)]
        chosen = _chosen(result, folder, count)
        if chosen:
            name = f"{output.stem}-{number}.jpg"
            image_grid([path for _, files in chosen for path in files], side=min(side, 256)).save(output.parent / name, quality=88)
            lines += ["", f"![samples]({name})", ""]
            lines += [f"{index}. {_cell(_caption(sample))}" for index, (sample, _) in enumerate(chosen, 1)]
    return "\n".join(lines) + "\n"
