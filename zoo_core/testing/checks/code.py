"""Importing the plugin: what the entry-point module may do, and whether all targets exist."""

from __future__ import annotations

import dataclasses
import importlib.util
import re

from zoo_core.specs import KINDS, resolve
from zoo_core.testing.checks import check
from zoo_core.testing.results import Skipped
from zoo_core.testing.subject import Subject

BUDGET_SECONDS = 0.2


@check("imports.plugin")
def plugin(subject: Subject) -> str:
    """The entry-point module can be imported and its hooks called, in a fresh interpreter."""
    assert "crash" not in subject.probe, f"the interpreter died: {subject.probe.get('crash')}"
    assert "plugin_error" not in subject.probe, f"{subject.module_name}: {subject.probe.get('plugin_error')}"
    seconds = subject.probe["import_seconds"]
    return f"{1000 * seconds:.0f} ms" + (f" (more than {1000 * BUDGET_SECONDS:.0f} ms)" if seconds > BUDGET_SECONDS else "")


@check("imports.light", needs=("imports.plugin",))
def light(subject: Subject) -> None:
    """It pulls in no heavy library."""
    heavy = subject.probe["plugin"]["heavy"]
    assert not heavy, f"importing {subject.module_name} imports {', '.join(heavy)}; move these imports behind 'module:attribute' targets"


@check("imports.quiet", needs=("imports.plugin",))
def quiet(subject: Subject) -> None:
    """It prints nothing."""
    printed = subject.probe["plugin"]["printed"]
    assert not printed, f"importing {subject.module_name} prints {printed!r}"


@check("imports.network", needs=("imports.plugin",))
def network(subject: Subject) -> None:
    """Neither it nor the modules of its targets use the network, and it starts no processes and writes no files."""
    report = subject.probe["plugin"]
    for what in ("network", "processes", "writes"):
        assert not report[what], f"importing {subject.module_name}: {what}: {report[what][0]}"
    calls = subject.probe["targets"].get("network", [])
    assert not calls, f"importing the modules of the targets uses the network: {calls[0]}"


@check("imports.state", needs=("imports.plugin",))
def state(subject: Subject) -> None:
    """Neither it nor the modules of its targets change global state (default dtype, random state, logging, environment...)."""
    for title, report in ((subject.module_name, subject.probe["plugin"]), ("the modules of the targets", subject.probe["targets"])):
        found = report.get("changes") or {}
        assert not found, f"importing {title} changes " + "; ".join(f"{name}: {text}" for name, text in found.items())
    assert not subject.probe["targets"].get("printed"), f"importing the modules of the targets prints {subject.probe['targets']['printed']!r}"


@check("hooks.specs", needs=("imports.plugin",))
def specs(subject: Subject) -> None:
    """Every hook has a known name and returns specs of its kind, with unique names."""
    from zoo_core import hookspecs

    for hook, values in subject.hooks.items():
        assert hasattr(hookspecs, f"zoo_{hook}"), f"there is no hook called zoo_{hook}"
        if hook in KINDS:
            for value in values:
                assert isinstance(value, KINDS[hook]), f"zoo_{hook} returns a {type(value).__name__}, expected {KINDS[hook].__name__}"
            names = [value.name for value in values]
            assert len(names) == len(set(names)), f"zoo_{hook} returns one name twice"


@check("metadata.provides", needs=("metadata.fragment", "metadata.names", "imports.plugin", "hooks.specs"))
def provides(subject: Subject) -> None:
    """``provides`` lists exactly what the hooks return."""
    listed = {kind: set(map(str, entries)) for kind, entries in (subject.fragment.get("provides") or {}).items()}
    for kind in KINDS:
        if kind == "models":
            extra = {spec.name for spec in subject.specs("models")} - set(subject.models)
            assert not extra, f"the hook zoo_models gives {sorted(extra)}, which registry.yaml does not list"
            continue
        given = {spec.name for spec in subject.specs(kind)}
        missing, surplus = given - listed.get(kind, set()), listed.get(kind, set()) - given
        assert not missing, f"the hook zoo_{kind} gives {sorted(missing)}, which provides.{kind} does not list"
        assert not surplus, f"provides.{kind} lists {sorted(surplus)}, which the hook zoo_{kind} does not give"


def _all_targets(subject: Subject) -> list[str]:
    if subject.probe.get("plugin_error"):
        raise Skipped("the plugin module cannot be imported")
    return sorted(subject.targets)


@check("hooks.targets", items=_all_targets, needs=("imports.plugin", "hooks.specs"))
def targets(subject: Subject, item: str) -> None:
    """Every target exists, and builders and handlers can be called."""
    target = subject.targets[item]
    try:
        value = resolve(target)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] in optional_modules(subject):
            raise Skipped(f"needs the optional package {error.name}") from None
        raise AssertionError(f"{item}: {target}: {error}") from None
    except Exception as error:
        raise AssertionError(f"{item}: {target}: {type(error).__name__}: {error}") from None
    if item.endswith(".config_class"):
        assert dataclasses.is_dataclass(value) and isinstance(value, type), f"{item}: {target} is no dataclass"
    else:
        assert callable(value), f"{item}: {target} cannot be called"


def optional_modules(subject: Subject) -> set[str]:
    """Import names that the distribution's extras may bring (guessed from the distribution names)."""
    names = set()
    for line in subject.distribution.requires or ():
        name = re.match(r"[A-Za-z0-9._-]+", line)
        if "extra ==" in line and name:
            names |= {name.group().replace("-", "_").lower(), name.group().split("-")[0].lower()}
    return {name for name in names if importlib.util.find_spec(name) is None}


@check("discovery.accepted", needs=("metadata.", "imports.plugin", "hooks.", "packaging.entry-point"))
def accepted(subject: Subject) -> None:
    """The registry takes the plugin: its models are found and lead to this plugin."""
    from zoo_core.registry import get_registry

    registry = get_registry()
    for name in subject.models:
        spec = registry.model(name)
        assert spec.name == name, f"the registry gives {spec.name!r} for {name!r}"
    for kind in KINDS:
        for spec in subject.specs(kind):
            found = registry.get(kind, spec.name)
            assert found.name == spec.name
