# ruff: noqa: E501, RUF043 - sources of made-up plugins stand on one line; plain text is matched
"""Discovery and activation: every state a plugin can be in harms nobody else."""

from __future__ import annotations

import json
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from zoo_core import discovery
from zoo_core import fragment as fragments
from zoo_core.errors import (
    IncompatiblePluginError,
    MissingDependencyError,
    PluginBlockedError,
    PluginConflictError,
    PluginLoadError,
    SpecError,
    UnknownNameError,
)

EVALUATOR = """from zoo_core import hookimpl
from zoo_core.specs import EvaluatorSpec

@hookimpl
def zoo_evaluators():
    return [EvaluatorSpec(name="{name}", task="text-to-image", build="math:sqrt")]
"""


def test_a_good_plugin_is_found_without_import_and_loaded_when_needed(plugin, registry) -> None:
    plugin("good", fragment={"provides": {"evaluators": ["good-score"]}}, plugin=EVALUATOR.format(name="good-score"))
    found = registry()
    assert found.plugins()["good"].state == "found"
    assert "good-score" in found.names("evaluators")
    assert "x_good" not in sys.modules
    assert found.get("evaluators", "good-score").build == "math:sqrt"
    assert found.plugins()["good"].state == "loaded"
    assert found.get("evaluator", "good-score").name == "good-score"
    with pytest.raises(UnknownNameError) as caught:
        found.get("evaluators", "good-scor")
    assert caught.value.fields["suggestions"] == ["good-score"]


@pytest.mark.parametrize("statement", ["raise RuntimeError('boom')", "raise SystemExit(3)", "import no_such_module_at_all", "1 +", "raise OSError"])
def test_fault_2_a_plugin_that_raises_at_import_harms_only_itself(plugin, registry, statement: str) -> None:
    plugin("bad", plugin=statement + "\n")
    plugin("good", fragment={"provides": {"evaluators": ["good-score"]}}, plugin=EVALUATOR.format(name="good-score"))
    found = registry()
    with pytest.raises((PluginLoadError, MissingDependencyError)) as caught:
        found.activate("bad")
    assert caught.value.__cause__ is not None
    state = found.plugins()["bad"]
    assert state.state == "broken" and state.reason
    assert not any(name.startswith("x_bad") for name in sys.modules)
    assert found.get("evaluators", "good-score")
    with pytest.raises((PluginLoadError, MissingDependencyError)):  # and again, without a second import
        found.activate("bad")


def test_fault_2_loading_a_model_of_a_broken_plugin_raises_from_the_original(plugin, registry) -> None:
    from zoo_core.loading import load

    plugin("bad", plugin="raise RuntimeError('boom')\n")
    registry()
    with pytest.raises(PluginLoadError, match="RuntimeError: boom") as caught:
        load("bad-model", weights="random")
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert "plugin.py:1" in str(caught.value)


def test_fault_2_keyboard_interrupt_passes(plugin, registry) -> None:
    plugin("slow", plugin="raise KeyboardInterrupt\n")
    found = registry()
    with pytest.raises(KeyboardInterrupt):
        found.activate("slow")
    assert found.plugins()["slow"].state == "found"


HALF = """from zoo_core import hookimpl
from zoo_core.specs import EvaluatorSpec, SamplerSpec

@hookimpl
def zoo_evaluators():
    return [EvaluatorSpec(name="half-score", task="text-to-image", build="math:sqrt")]

@hookimpl
def zoo_samplers():
    {statement}
"""


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("raise ValueError('second half')", "second half"),
        ("return [SamplerSpec(name='X', build='math:sqrt')]", "SamplerSpec 'X': field 'name'"),
        ("return [SamplerSpec(name='x', build='no colon')]", "field 'build'"),
        ("return [EvaluatorSpec(name='x', task='t', build='math:sqrt')]", "zoo_samplers returned EvaluatorSpec"),
        ("return [SamplerSpec(name='x', build='math:sqrt')] * 2", "registered twice"),
    ],
)
def test_fault_3_registration_is_rolled_back_fully(plugin, registry, statement: str, text: str) -> None:
    plugin("half", fragment={"provides": {"evaluators": ["half-score"]}}, plugin=HALF.format(statement=statement))
    found = registry()
    with pytest.raises(PluginLoadError, match=text):
        found.activate("half")
    assert found.manager.specs("half", "evaluators") == {}
    assert found.manager.pluggy.get_plugin("half") is None
    assert "x_half.plugin" not in sys.modules
    with pytest.raises(PluginLoadError):
        found.get("evaluators", "half-score")


def test_a_misspelt_hook_is_found(plugin, registry) -> None:
    plugin("typo", plugin="from zoo_core import hookimpl\n\n@hookimpl\ndef zoo_evaluator():\n    return []\n")
    with pytest.raises(PluginLoadError, match="zoo_evaluator.*does not exist") as caught:
        registry().activate("typo")
    assert "did you mean: zoo_evaluators" in str(caught.value)


def test_a_hook_without_marker_is_told(plugin, registry) -> None:
    plugin("unmarked", plugin="def zoo_evaluators():\n    return []\n")
    found = registry()
    found.activate("unmarked")
    assert any("@hookimpl" in remark for remark in found.plugins()["unmarked"].remarks)


def test_names_listed_but_not_returned_and_the_reverse_are_told(plugin, registry) -> None:
    plugin("drift", fragment={"provides": {"evaluators": ["other"]}}, plugin=EVALUATOR.format(name="mine"))
    found = registry()
    with pytest.raises(SpecError, match="does not return it"):
        found.get("evaluators", "other")
    assert len(found.plugins()["drift"].remarks) == 2


@pytest.mark.parametrize(("api", "side"), [(0, "upgrade the plugin"), (99, "upgrade zoo-core")])
def test_fault_4_another_api_version_is_not_imported(plugin, registry, api: int, side: str) -> None:
    plugin("future", fragment={"api": api, "models": {"future-model": {"task": "causal-lm", "build": "x_future.model:build"}}}, plugin="raise RuntimeError\n")
    found = registry()
    assert found.plugins()["future"].state == "incompatible"
    with pytest.raises(IncompatiblePluginError) as caught:
        found.activate("future")
    assert f"API {api}" in str(caught.value) and f"API {discovery.API_VERSION}" in str(caught.value) and side in str(caught.value)
    assert "future-model" not in found.models()


def test_fault_5_two_plugins_that_claim_one_model_are_refused_by_name_and_the_user_can_decide(plugin, registry, monkeypatch) -> None:
    from zoo_core import settings

    for name in ("one", "two"):
        plugin(name, fragment={"models": {"same": {"task": "text-to-image", "build": f"x_{name}.model:build", "summary": name}}})
    found = registry()
    for _ in range(2):
        with pytest.raises(PluginConflictError) as caught:
            found.model("same")
        assert "x-one" in str(caught.value) and "x-two" in str(caught.value)
    assert found.conflicts() == {"models/same": ["x-one", "x-two"]}
    assert "same" not in found.models()
    settings.prefer("models/same", "two")
    assert registry().model("same").summary == "two"


def test_fault_5_a_contested_evaluator_is_refused(plugin, registry) -> None:
    from zoo_core import settings

    for name in ("one", "two"):
        plugin(name, fragment={"provides": {"evaluators": ["score"]}}, plugin=EVALUATOR.format(name="score"))
    with pytest.raises(PluginConflictError, match="x-one and x-two"):
        registry().get("evaluators", "score")
    settings.prefer("evaluators/score", "x-one")
    assert registry().get("evaluators", "score")


def test_fault_5_first_party_names_are_not_overridden(plugin, registry) -> None:
    from zoo_core import catalog

    name, card = next(iter(catalog.cards().items()))
    plugin("squatter", fragment={"models": {name: {"task": "text-to-image", "build": "x_squatter.model:build"}}})
    with pytest.raises(PluginConflictError) as caught:
        registry().model(name)
    assert "x-squatter" in str(caught.value) and card["distribution"] in str(caught.value)


def test_fault_5_parity_kinds_belong_to_their_plugin(plugin, registry) -> None:
    code = "from zoo_core import hookimpl\nfrom zoo_core.specs import ParitySpec\n\n@hookimpl\ndef zoo_parity():\n    return [ParitySpec(name='k', run='math:{fn}')]\n"
    plugin("one", fragment={"provides": {"parity": ["k"]}}, plugin=code.format(fn="sin"))
    plugin("two", fragment={"provides": {"parity": ["k"]}}, plugin=code.format(fn="cos"))
    found = registry()
    assert found.get("parity", "k", plugin="one").run == "math:sin"
    assert found.get("parity", "k", plugin="two").run == "math:cos"


@pytest.mark.parametrize("requirement", ["no-such-package-anywhere", "numpy>=999"])
def test_fault_6_a_missing_or_old_dependency_is_told_before_any_download(plugin, registry, requirement: str, monkeypatch) -> None:
    import zoo_core.hub.resolve
    from zoo_core.loading import load

    monkeypatch.setattr(zoo_core.hub.resolve, "resolve_weights", lambda *a, **k: pytest.fail("weights were asked for"))
    plugin("needy", requires=(requirement, "pytest", 'never; python_version < "3"', 'extra-thing; extra == "more"'))
    registry()
    with pytest.raises(MissingDependencyError) as caught:
        load("needy-model")
    assert caught.value.fix == f'pip install "{requirement}"'


def test_fault_6_a_module_missing_at_import_is_named(plugin, registry) -> None:
    plugin("needy", plugin="import no_such_module_at_all\n")
    with pytest.raises(MissingDependencyError, match="no_such_module_at_all") as caught:
        registry().activate("needy")
    assert caught.value.fix == "pip install no_such_module_at_all"


def test_fault_7_the_newest_of_two_dist_infos_wins_and_is_told(site: Path, plugin, registry) -> None:
    plugin("twice", version="1.9")
    plugin("twice", version="1.10")
    found = registry().plugins()["twice"]
    assert found.state == "found" and found.version == "1.10"
    assert "1.9" in found.remarks[0] and "remove the stale folder" in found.remarks[0]


def test_one_entry_point_name_from_two_distributions_is_refused(plugin, registry) -> None:
    plugin("same-name", distribution="x-first")
    plugin("same-name", distribution="x-second")
    found = registry().plugins()["same-name"]
    assert found.state == "broken" and "x-first" in found.reason and "x-second" in found.reason


@pytest.mark.parametrize(
    ("fragment", "key", "expected"),
    [
        ("{not json", "", "not JSON"),
        ("[]", "", "expected a mapping"),
        ({"models": []}, "models", "expected a mapping"),
        ({"models": {"m": {"task": 3, "build": "a:b"}}}, "models.m.task", "a whole number, expected text"),
        ({"models": {"m": {"task": "causal-lm"}}}, "models.m.build", "missing"),
        ({"models": {"m": {"task": "causal-lm", "build": "a:b", "tags": ["x", 3]}}}, "models.m.tags[1]", "expected text"),
        ({"models": {"m": {"task": "causal-lm", "build": "a:b", "parmeters": 3}}}, "models.m.parmeters", "unknown"),
        ({"models": {"m": {"task": "causal-lm", "build": "a:b", "status": "great"}}}, "models.m.status", "great"),
        ({"provides": {"evaluatorz": []}}, "provides.evaluatorz", "unknown"),
        ({"extra": 1}, "extra", "unknown"),
        ("[" * 100_000, "", "nested too deeply"),
        ('{"schema": 1, "plugin": "' + "x" * (fragments.MAX_BYTES + 1) + '"}', "", "larger than"),
    ],
)
def test_fault_8_a_corrupt_fragment_harms_only_its_plugin(plugin, registry, fragment, key: str, expected: str) -> None:
    plugin("corrupt", fragment=fragment)
    plugin("good")
    found = registry()
    state = found.plugins()["corrupt"]
    assert state.state == "broken" and "registry.json" in state.reason and key in state.reason and expected in state.reason
    assert "good-model" in found.models()
    with pytest.raises(PluginLoadError, match="corrupt"):
        found.activate("corrupt")


def test_fault_8_unknown_fields_of_a_newer_schema_are_ignored(plugin, registry) -> None:
    plugin("newer", fragment={"schema": 2, "shiny": 1, "models": {"m-new": {"task": "causal-lm", "build": "a:b", "shinier": True}}})
    assert "m-new" in registry().models()


def test_a_fragment_without_package_or_file_is_broken(site: Path, plugin, registry) -> None:
    root = plugin("nofile")
    (root / "registry.json").unlink()
    assert "missing" in registry().plugins()["nofile"].reason


def test_an_edited_yaml_beside_the_compiled_file_is_read(plugin, registry) -> None:
    root = plugin("dev")
    data = json.loads((root / "registry.json").read_text())
    (root / "registry.json").write_text(json.dumps({**data, fragments.SOURCE_KEY: "00000000-1"}))
    data["models"]["dev-new"] = data["models"].pop("dev-model")
    (root / "registry.yaml").write_text(json.dumps(data))
    found = registry()
    assert "dev-new" in found.models() and "dev-model" not in found.models()
    assert "older than registry.yaml" in found.plugins()["dev"].remarks[0]


@pytest.mark.parametrize(
    ("variables", "states"),
    [
        ({"ZOO_PLUGINS": "one"}, ("found", "blocked")),
        ({"ZOO_PLUGINS": ""}, ("blocked", "blocked")),
        ({"ZOO_PLUGINS_DISABLE": "x-two"}, ("found", "blocked")),
        ({"ZOO_PLUGINS": "one two", "ZOO_PLUGINS_DISABLE": "one"}, ("blocked", "found")),
    ],
)
def test_allow_and_deny_lists_by_environment(plugin, registry, monkeypatch, variables, states) -> None:
    plugin("one")
    plugin("two")
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    found = registry()
    assert tuple(found.plugins()[name].state for name in ("one", "two")) == states
    blocked = "one" if states[0] == "blocked" else "two"
    with pytest.raises(PluginBlockedError, match=r"ZOO_PLUGINS"):
        found.activate(blocked)


def test_deny_list_by_file_and_a_bad_file(plugin, registry, tmp_path: Path) -> None:
    from zoo_core import settings
    from zoo_core.errors import ConfigError

    plugin("one")
    settings.change("one", enabled=False)
    assert registry().plugins()["one"].state == "blocked"
    settings.change("one", enabled=True)
    assert registry().plugins()["one"].state == "found"
    (tmp_path / "config.json").write_text('{"plugins": {"disable": "one"}}')
    with pytest.raises(ConfigError, match=r"config\.json: plugins\.disable: expected a list"):
        registry()


def test_plugins_in_an_archive_on_the_path(tmp_path: Path) -> None:
    archive = tmp_path / "p.whl"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x_zip-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: x-zip\nVersion: 1.0\n")
        file.writestr("x_zip-1.0.dist-info/entry_points.txt", "[zoo.plugins]\nzipped = x_zip.plugin\n")
    assert [(e.name, e.distribution, e.version) for e in discovery.entry_points([str(archive)])] == [("zipped", "x-zip", "1.0")]


def test_activation_from_many_threads_happens_once(plugin, registry) -> None:
    code = EVALUATOR.format(name="threaded") + "\nimport x_threads, time\ntime.sleep(0.05)\nx_threads.count = getattr(x_threads, 'count', 0) + 1\n"
    plugin("threads", fragment={"provides": {"evaluators": ["threaded"]}}, plugin=code)
    found = registry()
    results: list[object] = []
    threads = [threading.Thread(target=lambda: results.append(found.get("evaluators", "threaded"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8 and len({id(item) for item in results}) == 1
    assert sys.modules["x_threads"].count == 1


@pytest.mark.parametrize("pair", [("1.9", "1.10"), ("1.0a1", "1.0"), ("1.0", "1.0.1"), ("0.9", "1")])
def test_version_order(pair: tuple[str, str]) -> None:
    assert discovery.version_key(pair[0]) < discovery.version_key(pair[1])


def test_a_model_of_an_incompatible_plugin_is_answered_with_its_state(plugin, registry) -> None:
    plugin("future", fragment={"api": 99, "models": {"future-model": {"task": "causal-lm", "build": "x_future.model:build"}}})
    with pytest.raises(IncompatiblePluginError, match="API 99"):
        registry().model("future-model")
