"""The registry fragment: what the catalogue says about the plugin."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from zoo_core.fragment import SOURCE_KEY
from zoo_core.specs import API_VERSION, KINDS, NAME, STATUSES, TARGET, TASKS
from zoo_core.testing.checks import check
from zoo_core.testing.results import Skipped
from zoo_core.testing.subject import Subject

COMMIT = re.compile(r"[0-9a-f]{40}\Z")
DIGEST = re.compile(r"[0-9a-f]{64}\Z")
SOURCES = ("hf://", "embedded:", "pypi://", "local:")


@check("metadata.fragment")
def fragment(subject: Subject) -> None:
    """``registry.yaml`` and ``registry.json`` lie in the package and can be read."""
    for name in ("registry.yaml", "registry.json"):
        path = subject.folder / name
        assert path.is_file(), f"{name} is missing in the package {subject.package!r} (write registry.yaml, then `zoo registry build`)"
        try:
            subject.read(name)
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from None


@check("metadata.fresh", needs=("metadata.fragment",))
def fresh(subject: Subject) -> None:
    """``registry.json`` holds what ``registry.yaml`` says."""
    written = json.loads(json.dumps(subject.fragment, default=str))
    compiled = {key: value for key, value in subject.read("registry.json").items() if key != SOURCE_KEY}
    different = sorted(key for key in {*written, *compiled} if written.get(key) != compiled.get(key))
    assert not different, f"registry.json is stale in {different}; run `zoo registry build`"


@check("metadata.identity", needs=("metadata.fragment",))
def identity(subject: Subject) -> None:
    """Schema, plugin, distribution, package and API version are those of the installed distribution and of this core."""
    wanted = {"schema": 1, "plugin": subject.name, "distribution": subject.distribution.name, "package": subject.package, "api": API_VERSION}
    for key, value in wanted.items():
        found = subject.fragment.get(key)
        assert found == value, f"registry.yaml: {key!r} is {found!r}, expected {value!r}"


@check("metadata.names", needs=("metadata.fragment",))
def names(subject: Subject) -> None:
    """Names of models, variants, aliases and provided things are legal and unique."""
    used: Counter[str] = Counter()
    for name, entry in (subject.fragment.get("models") or {}).items():
        assert isinstance(entry, dict), f"model {name!r}: the entry is no mapping"
        aliases = [str(alias) for alias in entry.get("aliases", ())]
        used.update([str(name), *aliases])
        for text in [str(name), *aliases, *map(str, entry.get("variants") or ())]:
            assert NAME.match(text), f"model {name!r}: the name {text!r} is not legal (lower-case letters, digits, '.', '_', '-')"
    twice = [name for name, count in used.items() if count > 1]
    assert not twice, f"used for two models or aliases: {twice}"
    for kind, entries in (subject.fragment.get("provides") or {}).items():
        assert kind in KINDS, f"provides: {kind!r} is no kind (one of {', '.join(KINDS)})"
        bad = [name for name in entries if not NAME.match(str(name).replace("/", "-"))]
        assert not bad, f"provides.{kind}: not legal: {bad}"


@check("metadata.models", needs=("metadata.fragment", "metadata.names"))
def models(subject: Subject) -> str | None:
    """Every model has a task, a summary, a status, a builder and a parameter count."""
    if not subject.models:
        raise Skipped("the plugin has no models")
    for name, entry in subject.models.items():
        task = entry.get("task")
        assert task in TASKS or "/" in str(task), f"model {name!r}: task {task!r} is none of {', '.join(TASKS)} and no 'vendor/task'"
        assert str(entry.get("summary") or "").strip(), f"model {name!r}: 'summary' is empty"
        assert entry.get("status") in STATUSES, f"model {name!r}: status {entry.get('status')!r} is none of {', '.join(STATUSES)}"
        assert TARGET.match(str(entry.get("build"))), f"model {name!r}: build {entry.get('build')!r} is no 'package.module:attribute'"
        count = entry.get("parameters")
        assert count is None or (isinstance(count, int) and count >= 0), f"model {name!r}: parameters {count!r} is no whole number"
    unknown = [name for name, entry in subject.models.items() if entry.get("parameters") is None]
    return f"no parameter count: {', '.join(unknown)}" if unknown else None


@check("metadata.licence", needs=("metadata.fragment",))
def licence(subject: Subject) -> None:
    """Every model with weights names their licence."""
    for name, entry in subject.models.items():
        if entry.get("status") != "config-only":
            terms = entry.get("licence")
            assert isinstance(terms, dict) and str(terms.get("name") or "").strip(), f"model {name!r} has weights but no licence.name"
            assert terms.get("commercial") in (True, False, None), f"model {name!r}: licence.commercial is {terms.get('commercial')!r}, not true, false or null"


@check("metadata.files", needs=("metadata.fragment",))
def files(subject: Subject) -> str | None:
    """Weight files name a known kind of source, stay in their folder, and are pinned whole (commit, size, SHA-256) or not at all."""
    loose: list[str] = []
    seen = 0
    for name, entry in subject.models.items():
        weights = entry.get("weights") or []
        assert weights or entry.get("status") == "config-only", f"model {name!r} is {entry.get('status')} but lists no weights"
        for item in weights:
            seen += 1
            _source(subject, name, item, loose)
    if not seen:
        raise Skipped("the plugin lists no weights")
    return f"not pinned (run `zoo registry pin`): {', '.join(loose)}" if loose else None


def _source(subject: Subject, name: str, item: dict[str, Any], loose: list[str]) -> None:
    source = str(item.get("source") or "")
    assert source.startswith(SOURCES), f"model {name!r}: weights source {source!r} starts with none of {', '.join(SOURCES)}"
    revision, listed = item.get("revision"), item.get("files") or []
    assert revision is None or COMMIT.match(str(revision)), f"model {name!r}: revision {revision!r} is no commit (40 hex digits); branches and tags move"
    for file in listed:
        path = str(file.get("path") or "")
        assert path and not path.startswith(("/", "\\")) and ".." not in path.replace("\\", "/").split("/"), (
            f"model {name!r}: file path {path!r} leaves its folder"
        )
        digest = file.get("sha256")
        assert digest is None or DIGEST.match(str(digest)), f"model {name!r}: {path}: sha256 is not 64 hex digits"
        if revision is not None:
            assert digest and isinstance(file.get("size"), int), (
                f"model {name!r}: {path} is pinned to a commit but has no size or sha256 (run `zoo registry pin {name}`)"
            )
    if source.startswith("hf://") and revision is None:
        loose.append(name)
    if source.startswith("embedded:"):
        path = source.removeprefix("embedded:")
        assert (subject.folder / path).exists(), f"model {name!r}: embedded file {path!r} is not in the package"


@check("metadata.embedded", needs=("metadata.fragment",))
def embedded(subject: Subject) -> None:
    """Embedded weights say how they were made: data, seed or steps, and measured quality."""
    found = [(name, entry) for name, entry in subject.models.items() if entry.get("status") == "embedded"]
    if not found:
        raise Skipped("no embedded weights")
    for name, entry in found:
        trained = entry.get("trained")
        assert isinstance(trained, dict) and trained.get("data") and trained.get("quality"), (
            f"model {name!r} is embedded: 'trained' must hold 'data' and 'quality'"
        )


@check("metadata.recognises", needs=("metadata.fragment",))
def recognises(subject: Subject) -> None:
    """Rules for local folders lead to models of this plugin."""
    rules = subject.fragment.get("recognises") or []
    if not rules:
        raise Skipped("the plugin recognises no folders")
    for rule in rules:
        assert rule.get("model") in subject.models, f"recognises: {rule.get('model')!r} is no model of this plugin"
        assert rule.get("file"), f"recognises: the rule for {rule.get('model')!r} names no file"


@check("metadata.schema", needs=("metadata.",))
def schema(subject: Subject) -> None:
    """The compiled fragment has no unknown or ill-typed keys (what the registry itself checks)."""
    from zoo_core.fragment import check as check_schema

    check_schema(subject.read("registry.json"), "registry.json")
