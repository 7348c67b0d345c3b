# ruff: noqa: E501, RUF043 - sources of made-up plugins stand on one line; plain text is matched
"""The merged catalogue: staleness, install commands, filters, pinning in place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from zoo_core import api, catalog
from zoo_core import fragment as fragments
from zoo_core.errors import InputError, PluginNotInstalledError, SpecError, UnknownModelError
from zoo_core.registry import ZooRegistry, get_registry
from zoo_core.scaffold import compilation
from zoo_core.settings import Settings

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def nothing_installed(monkeypatch, site: Path) -> ZooRegistry:
    """The registry of an environment without any plugin."""
    import zoo_core.registry

    registry = ZooRegistry(Settings(), path=[])
    monkeypatch.setattr(zoo_core.registry, "_registry", registry)
    return registry


def test_catalogue_and_compiled_fragments_are_up_to_date() -> None:
    stale = [path.relative_to(ROOT).as_posix() for path in compilation.build(ROOT, check=True)]
    assert not stale, "run: zoo registry build"


def test_root_yaml_and_shipped_json_say_the_same() -> None:
    text = (ROOT / "registry.yaml").read_bytes()
    assert fragments.from_yaml(text, "registry.yaml") == json.loads((ROOT / "zoo_core" / "data" / "registry.json").read_text(encoding="utf-8"))


def test_every_catalogue_model_has_what_a_user_needs() -> None:
    for name, card in catalog.cards().items():
        assert card["task"] and card["summary"] and card["status"] in fragments.STATUSES, name
        assert card["distribution"] == catalog.papers()[card["plugin"]]["distribution"], name


def test_fault_1_known_but_not_installed_gives_the_command_for_this_installation(nothing_installed, monkeypatch) -> None:
    name, card = next(iter(catalog.cards().items()))
    for folder, command in (("/some/checkout", f'pip install "/some/checkout[{card["plugin"]}]"'), (None, f'pip install "zoo-core[{card["plugin"]}]"')):
        monkeypatch.setattr(catalog, "core_folder", lambda folder=folder: folder)
        with pytest.raises(PluginNotInstalledError) as caught:
            nothing_installed.model(name)
        assert caught.value.fix == command
        assert card["distribution"] in str(caught.value)
    assert api.info(name)["install"] == command


def test_install_command_reads_pep_610(tmp_path: Path, monkeypatch) -> None:
    checkout = tmp_path / "my checkout"
    checkout.mkdir()
    (checkout / "pyproject.toml").write_text("")
    info = tmp_path / "site" / "zoo_core-0.1.0.dist-info"
    info.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(info.parent))
    assert catalog.core_folder() is None  # from an index: no record
    (info / "direct_url.json").write_text(json.dumps({"url": checkout.as_uri(), "dir_info": {"editable": True}}))
    assert catalog.core_folder() == str(checkout)
    (checkout / "pyproject.toml").unlink()
    assert catalog.core_folder() is None  # the folder is gone
    (info / "direct_url.json").write_text('{"url": "https://example.org/x.whl"}')
    assert catalog.core_folder() is None


def test_a_third_party_plugin_is_installed_by_its_own_name() -> None:
    assert catalog.install_command("elsewhere", "their-plugin") == "pip install their-plugin"


def test_papers_without_a_plugin_in_this_release_are_told(monkeypatch, site: Path, registry) -> None:
    fragment = {"plugin": "sana", "distribution": "zoo-sana", "models": {}}
    monkeypatch.setattr(catalog, "catalogue", lambda: {"sana": fragment})
    catalog.announced.cache_clear()
    try:
        with pytest.raises(UnknownModelError, match="HART.*2410.10812.*not part of this release"):
            registry().card("hart-0.7b-1024")
    finally:
        catalog.announced.cache_clear()


def test_aliases_and_variants(plugin, registry) -> None:
    entry = {"task": "causal-lm", "build": "x_al.model:build", "aliases": ["short"], "memory": {"weights_bytes": 8}, "precision": {"default": "float32"},
             "variants": {"bf16": {"precision": {"default": "bfloat16"}, "memory": {"weights_bytes": 4}}}}  # fmt: skip
    plugin("al", fragment={"models": {"al-model": entry}})
    found = registry()
    spec = found.model("short@bf16")
    assert spec.name == "al-model" and spec.card["precision"] == {"default": "bfloat16"} and spec.card["memory"] == {"weights_bytes": 4}
    assert "short" not in found.models()
    with pytest.raises(UnknownModelError, match="no variant 'bf1'") as caught:
        found.model("al-model@bf1")
    assert caught.value.fields["suggestions"] == ["bf16"]


def test_filters(plugin, registry) -> None:
    common = {"task": "causal-lm", "build": "x_f.model:build"}
    plugin("f", fragment={"models": {
        "f-small": {**common, "parameters": 10**6, "memory": {"weights_bytes": 4 * 10**6}, "licence": {"spdx": "Apache-2.0", "commercial": True}, "tags": ["tiny"]},
        "f-large": {**common, "parameters": 7 * 10**9, "memory": {"weights_bytes": 28 * 10**9}, "licence": {"name": "Research only", "commercial": False}},
        "f-silent": common}})  # fmt: skip
    registry()

    def names(**filters: object) -> list[str]:
        return [card["name"] for card in api.list_models(plugin="f", **filters)]

    assert names() == ["f-large", "f-silent", "f-small"]
    assert names(max_params="1.5B") == ["f-small"] and names(max_memory="16GiB") == ["f-small"]
    assert names(commercial=True) == ["f-small"] and names(licence="research") == ["f-large"] and names(tag="tiny") == ["f-small"]
    assert names(status="embedded") == [] and names(installed=False) == []
    with pytest.raises(InputError, match="max_params '3 apples'"):
        names(max_params="3 apples")
    with pytest.raises(InputError, match="task 'causal-ml' is unknown"):
        names(task="causal-ml")
    assert [card["name"] for card in api.search("research only")] == ["f-large"]


def test_two_fragments_cannot_claim_one_name_in_the_catalogue() -> None:
    entry = {"task": "causal-lm", "build": "a:b"}
    one = {"schema": 1, "plugin": "one", "distribution": "d1", "package": "p1", "models": {"m": entry}}
    two = {"schema": 1, "plugin": "two", "distribution": "d2", "package": "p2", "models": {"n": {**entry, "aliases": ["m"]}}}
    with pytest.raises(SpecError, match="'m' is claimed by 'one' and 'two'"):
        compilation.merge([one, two])


FRAGMENT = """# a comment that stays
schema: 1
plugin: pinned
distribution: x-pinned
package: x_pinned
models:
  pinned-model:   # and this one
    task: causal-lm
    build: x_pinned.model:build
    weights:
      - source: embedded:data/x.safetensors
      - source: hf://org/repo
        revision: null
        files: [{path: config.json}, {path: model.safetensors, size: null, sha256: null}]
    tags: [last]
    trained: {date: 2026-11-23, seed: 0}
"""


def test_pin_writes_commit_and_digests_and_keeps_the_rest(tmp_path: Path, monkeypatch) -> None:
    import zoo_core.hub

    source = tmp_path / "x_pinned" / "registry.yaml"
    source.parent.mkdir()
    source.write_text(FRAGMENT)
    commit = "0123456789" * 4
    asked = {}

    def pin(source: str, files: list[str] | None) -> tuple[str, list[dict[str, object]]]:
        asked["source"], asked["files"] = source, files
        return commit, [{"path": "config.json", "size": 3, "sha256": "1" * 64}, {"path": "model.safetensors", "size": 5, "sha256": "ab" * 32}]

    monkeypatch.setattr(zoo_core.hub, "pin", pin, raising=False)
    assert compilation.pin_model(tmp_path, "pinned-model", revision="v2")
    assert asked == {"source": "hf://org/repo@v2", "files": ["config.json", "model.safetensors"]}
    text = source.read_text()
    assert "# a comment that stays" in text and "# and this one" in text and "tags: [last]" in text
    entry = yaml.safe_load(text)["models"]["pinned-model"]["weights"][1]
    assert entry["revision"] == commit and entry["files"][0] == {"path": "config.json", "size": 3, "sha256": "1" * 64}
    assert compilation.pin_model(tmp_path, "pinned-model") and source.read_text() == text  # a second time changes nothing
    with pytest.raises(UnknownModelError, match="did you mean: pinned-model"):
        compilation.pin_model(tmp_path, "pinned-modl")


def test_build_compiles_a_plugin_project_of_its_own(tmp_path: Path) -> None:
    source = tmp_path / "x_pinned" / "registry.yaml"
    source.parent.mkdir()
    source.write_text(FRAGMENT)
    assert compilation.build(tmp_path) == [source.with_suffix(".json")]
    data, remarks = fragments.read(str(source.parent))
    assert not remarks and data["models"]["pinned-model"]["trained"] == {"date": "2026-11-23", "seed": 0}
    assert compilation.build(tmp_path, check=True) == []
    source.write_text(FRAGMENT.replace("[last]", "[first]"))
    assert compilation.build(tmp_path, check=True) == [source.with_suffix(".json")]


def test_the_registry_is_one_per_process(site: Path) -> None:
    assert get_registry() is get_registry()
    assert get_registry(refresh=True) is get_registry()
