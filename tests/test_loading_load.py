# ruff: noqa: E501, RUF043 - sources of made-up plugins stand on one line; plain text is matched
"""``zoo.load`` on made-up plugins."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import pickle
import threading
from pathlib import Path

import pytest

from zoo_core.errors import (
    CheckpointError,
    ConfigError,
    DeviceError,
    InputError,
    NotEnoughMemoryError,
    PluginLoadError,
    SpecError,
    UnknownModelError,
    WeightsError,
    ZooError,
)
from zoo_core.loading import load
from zoo_core.testing.fake_hub import FakeHub
from zoo_core.testing.weight_fixtures import fake_hub, zoo_cache  # noqa: F401

TOY = {
    "toy-model": {
        "task": "text-to-image",
        "build": "x_toy.model:build",
        "config": {"width": 4},
        "status": "config-only",
        "variants": {"wide": {"config": {"width": 6}}},
    }
}


@pytest.fixture
def toy(plugin, registry) -> Path:
    folder = plugin(
        "toy", fragment={"models": TOY, "recognises": [{"file": "config.json", "key": "kind.name", "equals": ["toy", "toi"], "model": "toy-model"}]}
    )
    registry()
    return folder


def test_a_handle_with_a_full_report(toy: Path) -> None:
    model = load("toy-model", weights="random", device="cpu", seed=3)
    assert (model.name, model.task, model.num_parameters) == ("toy-model", "text-to-image", 20)
    report = model.report
    assert report is not None
    assert {"resolve name", "plugin", "config", "import", "files", "build", "total"} <= set(report.seconds)
    assert report.bytes["parameters"] == 80
    assert json.dumps(report.to_dict())


def test_variant_overrides_file_and_dtype(toy: Path, tmp_path: Path) -> None:
    import torch

    assert load("toy-model@wide", weights="random").module.in_features == 6
    file = tmp_path / "c.json"
    file.write_text('{"width": 5}')
    assert load("toy-model@wide", weights="random", config_file=file).module.in_features == 5
    assert load("toy-model", weights="random", config_file=file, overrides=["width=7"]).module.in_features == 7
    assert load("toy-model", weights="random", dtype={"net": "bf16"}).module.weight.dtype == torch.bfloat16
    assert load("toy-model", weights="random", dtype=torch.float64).module.weight.dtype == torch.float64


def test_the_seed_decides_random_weights(toy: Path) -> None:
    a, b, c = (load("toy-model", weights="random", seed=s).module.weight for s in (1, 1, 2))
    assert a.equal(b) and not a.equal(c)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"overrides": ["widht=3"]}, ConfigError),
        ({"overrides": ["width=x"]}, ConfigError),
        ({"speeed": 3}, ConfigError),
        ({"kernels": "nonsense"}, InputError),
        ({"dtype": "float7"}, InputError),
        ({"device": "toaster"}, DeviceError),
        ({"device": "meta", "weights": None}, DeviceError),
        ({"revision": "main"}, WeightsError),
        ({"weights": "/no/such/folder"}, ZooError),
    ],
)
def test_bad_arguments_are_user_errors_with_a_fix(toy: Path, arguments: dict, error: type[ZooError]) -> None:
    with pytest.raises(error) as caught:
        load("toy-model", **{"weights": None if "revision" in arguments else "random", **arguments})
    assert caught.value.fix


def test_fault_1_an_unknown_name_has_near_misses(toy: Path) -> None:
    with pytest.raises(UnknownModelError) as caught:
        load("toy-modl")
    assert caught.value.fields["suggestions"][0] == "toy-model" and len(caught.value.fields["suggestions"]) <= 5


def test_fault_19_parameters_left_on_meta_are_named(plugin, registry) -> None:
    code = "import torch\nfrom zoo_core.interfaces import Model\n\ndef build(r):\n    m = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2, device='meta'))\n    return Model(r.spec, r.config, {'net': m}, r.report)\n"
    plugin("meta", fragment={"models": {"meta-model": {"task": "text-to-image", "build": "x_meta.lazy:build"}}}, files={"lazy.py": code})
    registry()
    with pytest.raises(CheckpointError) as caught:
        load("meta-model", weights="random")
    assert set(caught.value.fields["tensors"]) == {"net.1.weight", "net.1.bias", "net.1.running_mean", "net.1.running_var", "net.1.num_batches_tracked"}


@pytest.mark.parametrize(("dtype", "nearest"), [("fp8", "bfloat16"), ("float8_e5m2", "bfloat16")])
def test_fault_21_a_dtype_the_device_lacks_is_refused_with_the_nearest(toy: Path, dtype: str, nearest: str) -> None:
    with pytest.raises(DeviceError) as caught:
        load("toy-model", weights="random", device="cpu", dtype=dtype)
    assert caught.value.fields["nearest"] == nearest


def test_fault_21_a_device_the_machine_lacks_is_refused_before_files(toy: Path, monkeypatch) -> None:
    import torch

    import zoo_core.hub.resolve

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(zoo_core.hub.resolve, "resolve_weights", lambda *a, **k: pytest.fail("files were asked for"))
    for device in ("cuda", "cuda:3", "mps"):
        with pytest.raises(DeviceError, match="this machine has no") as caught:
            load("toy-model", weights="random", device=device)
        assert caught.value.fix == "device='cpu'"


def test_fault_21_an_old_gpu_has_no_bfloat16(monkeypatch) -> None:
    import torch

    from zoo_core.devices import check_dtype

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    with pytest.raises(DeviceError, match=r"needs capability 8\.0, this device has 7\.5") as caught:
        check_dtype(torch.bfloat16, torch.device("cuda"))
    assert caught.value.fix == "dtype='float16'"
    with pytest.raises(DeviceError, match="integer"):
        check_dtype(torch.int8, torch.device("cpu"))


def test_fault_22_running_out_of_memory_is_annotated(plugin, registry) -> None:
    entry = {"task": "text-to-image", "build": "x_big.big:build", "memory": {"weights_bytes": 4 * 10**15}, "precision": {"default": "float32"}}
    plugin("big", fragment={"models": {"big-model": entry}}, files={"big.py": "def build(r):\n    raise MemoryError('12 bytes')\n"})
    registry()
    with pytest.raises(NotEnoughMemoryError, match=r"estimate: 4000000\.0 GB") as caught:
        load("big-model", weights="random")
    assert isinstance(caught.value.__cause__, MemoryError) and caught.value.fix


def test_other_runtime_errors_of_a_builder_pass_unchanged(plugin, registry) -> None:
    plugin(
        "odd",
        fragment={"models": {"odd-model": {"task": "text-to-image", "build": "x_odd.odd:build"}}},
        files={"odd.py": "def build(r):\n    raise RuntimeError('mine')\n"},
    )
    registry()
    with pytest.raises(RuntimeError, match="^mine$"):
        load("odd-model", weights="random")


@pytest.mark.parametrize("target", ["x_gone.missing:build", "x_gone.model:missing", "x_gone.exits:build"])
def test_a_builder_that_cannot_be_imported_is_the_plugins_fault(plugin, registry, target: str) -> None:
    plugin("gone", fragment={"models": {"gone-model": {"task": "text-to-image", "build": target}}}, files={"exits.py": "raise SystemExit\n"})
    registry()
    with pytest.raises(PluginLoadError) as caught:
        load("gone-model", weights="random")
    assert caught.value.__cause__ is not None


def test_a_builder_must_return_a_handle(plugin, registry) -> None:
    plugin("wrong", fragment={"models": {"wrong-model": {"task": "text-to-image", "build": "math:sqrt"}}}, files={"w.py": "def build(r):\n    return 3\n"})
    plugin(
        "wrong2", fragment={"models": {"wrong2-model": {"task": "text-to-image", "build": "x_wrong2.w:build"}}}, files={"w.py": "def build(r):\n    return 3\n"}
    )
    registry()
    with pytest.raises(SpecError, match="returned int"):
        load("wrong2-model", weights="random")


def test_paths_are_recognised_by_rule_manifest_and_bundle(toy: Path, tmp_path: Path) -> None:
    from zoo_core import recognition
    from zoo_core.registry import get_registry

    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text('{"kind": {"name": "toi"}}')
    assert recognition.folder(str(folder), get_registry()) == "toy-model"
    assert load(str(folder)).load_arguments["name"] == str(folder)
    assert load(folder).name == "toy-model"  # a Path, too
    (folder / "config.json").write_text('{"kind": ["x"]}')
    with pytest.raises(UnknownModelError, match="no installed plugin recognises") as caught:
        load(folder)
    assert "toy: config.json with kind.name = ['toy', 'toi']" in caught.value.tried
    (folder / "zoo-manifest.json").write_text('{"model": "toy-model"}')
    assert recognition.folder(str(folder), get_registry()) == "toy-model"
    with pytest.raises(UnknownModelError, match="one file"):
        load(folder / "config.json")
    (tmp_path / "x.zoo").write_bytes(b"not a bundle")
    with pytest.raises(CheckpointError, match="not a bundle"):
        load(str(tmp_path / "x.zoo"))
    for text in ("./no/such", "../x", "/no/such"):
        with pytest.raises(WeightsError, match="not on this machine"):
            load(text)


def test_fault_26_a_rule_cannot_leave_the_folder(plugin, registry, tmp_path: Path) -> None:
    plugin("evil", fragment={"recognises": [{"file": "../secret.json", "model": "m"}]})
    with pytest.raises(ZooError, match="not safe"):
        registry()
        load(tmp_path)


def test_fault_30_handles_pickle_by_name_and_options_not_by_value(toy: Path) -> None:
    model = load("toy-model@wide", weights="random", seed=5, dtype="float64", overrides=["width=3"], speed=2)
    content = pickle.dumps(model)
    assert len(content) < 600 and b"float64" in content
    again = pickle.loads(content)
    assert again.module.weight.equal(model.module.weight) and again.module.weight is not model.module.weight


CHILD = """import pickle

def run(queue, handle):
    model = pickle.loads(handle)
    queue.put((model.name, model.module.weight.double().sum().item()))
"""


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_fault_30_discovery_repeats_in_child_processes(toy: Path, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    (toy / "child.py").write_text(CHILD)
    child = importlib.import_module("x_toy.child")
    model = load("toy-model", weights="random", seed=1)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=child.run, args=(queue, pickle.dumps(model)))
    process.start()
    name, total = queue.get(timeout=120)
    process.join(60)
    assert name == "toy-model" and total == model.module.weight.double().sum().item()


def test_fault_30_compile_wraps_the_network_lazily(toy: Path, monkeypatch) -> None:
    import torch

    asked = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: asked.append(options))
    load("toy-model", weights="random", compile={"dynamic": True})
    assert asked == [{"dynamic": True}]


def test_loading_from_many_threads(toy: Path) -> None:
    found: list[float] = []
    threads = [threading.Thread(target=lambda: found.append(load("toy-model", weights="random", seed=7).module.in_features)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [4] * 6


def test_post_load_hooks_of_active_plugins_see_every_model_and_cannot_break_it(toy: Path, plugin, registry) -> None:
    code = "from zoo_core import hookimpl\nseen = []\n\n@hookimpl\ndef zoo_post_load(model, options):\n    seen.append((model.name, options))\n    raise ValueError('mine')\n"
    plugin("watcher", plugin=code)
    registry().activate("watcher")
    model = load("toy-model", weights="random", speed=1)
    import sys

    assert sys.modules["x_watcher.plugin"].seen == [("toy-model", {"speed": 1})]
    assert model.report.warnings == ["plugin 'watcher': its zoo_post_load hook raised ValueError: mine"]


KERNELS = "from zoo_core import hookimpl\nfrom zoo_core.specs import KernelSpec\n\n@hookimpl\ndef zoo_kernels():\n    return [KernelSpec(name='mine', register='x_{name}.kernels:register')]\n"
REGISTER = "from zoo_kernels.spec import KernelImpl\n\ndef register(registry):\n    registry.scan()\n    registry.add(KernelImpl('rms_norm', '{name}', lambda: abs, priority=-300))\n"


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch):
    """The registry of zoo_kernels, put back afterwards."""
    from zoo_kernels.registry import registry

    registry.scan()
    for name in ("_ops", "_origins", "_targets"):
        monkeypatch.setattr(registry, name, type(getattr(registry, name))(getattr(registry, name)))
    monkeypatch.setattr(registry, "_implementations", {op: dict(table) for op, table in registry._implementations.items()})
    return registry


def test_loading_registers_the_kernels_of_every_plugin(toy: Path, plugin, registry, operations) -> None:
    plugin("fast", fragment={"provides": {"kernels": ["mine"]}}, plugin=KERNELS.format(name="fast"), files={"kernels.py": REGISTER.format(name="fast")})
    registry()
    for _ in range(2):
        assert load("toy-model", weights="random").report.warnings == []
    assert operations.implementation("rms_norm", "fast").origin == "x_fast.kernels:register"


def test_a_stranger_with_broken_kernels_is_a_warning_the_own_plugin_an_error(toy: Path, plugin, registry, operations) -> None:
    broken = REGISTER.format(name="bad") + "    raise ValueError('no such card')\n"
    plugin("bad", fragment={"provides": {"kernels": ["mine"]}, "models": {"bad-model": {"task": "text-to-image", "build": "x_bad.model:build"}}},
           plugin=KERNELS.format(name="bad"), files={"kernels.py": broken})  # fmt: skip
    registry()
    [warning] = load("toy-model", weights="random").report.warnings
    assert "'mine'" in warning and "no such card" in warning
    with pytest.raises(PluginLoadError, match="no such card"):
        load("bad-model", weights="random")
    assert "bad" not in [item.name for item in operations.implementations("rms_norm")], "nothing of it remains"


def test_registry_build_reaches_models_and_components(toy: Path, plugin, registry) -> None:
    code = "from zoo_core import hookimpl\nfrom zoo_core.specs import ComponentSpec, SamplerSpec\n\n@hookimpl\ndef zoo_components():\n    return [ComponentSpec(name='c', kind='denoiser', build='builtins:dict')]\n\n@hookimpl\ndef zoo_samplers():\n    return [SamplerSpec(name='s', build='builtins:dict')]\n"
    plugin("parts", fragment={"provides": {"components": ["c"], "samplers": ["s"]}}, plugin=code)
    found = registry()
    assert found.build("denoiser", "c", a=1) == {"a": 1} and found.build("sampler", "s", b=2) == {"b": 2}
    assert found.build("autoencoder", "toy-model", weights="random").name == "toy-model"
    with pytest.raises(ZooError, match="is a denoiser, not a vocoder"):
        found.build("vocoder", "c")


@pytest.mark.parametrize(
    ("settings", "total"),
    [
        ({}, 1000 + 50),
        ({"batch": 2, "height": 10, "width": 20}, 1000 + 50 + 2 * 3 * 200),
        ({"length": 5}, 1000 + 50 + 5 * 7),
        ({"dtype": "bf16", "height": 10, "width": 20}, 500 + 50 + 300),
    ],
)
def test_fit_follows_its_documented_formula(settings: dict, total: int) -> None:
    from zoo_core.devices import estimate

    card = {"name": "m", "memory": {"weights_bytes": 1000, "fixed_bytes": 50, "per_pixel_bytes": 3, "per_token_bytes": 7}, "precision": {"default": "float32"}}
    assert estimate(card, **settings).total_bytes == total


def test_fault_22_fit_tells_what_would_fit_instead() -> None:
    from zoo_core.devices import HEADROOM, advice, alternatives, estimate

    card = {"name": "m", "memory": {"weights_bytes": 100, "per_pixel_bytes": 10}, "precision": {"default": "float32"}}
    wanted = estimate(card, height=1024, width=1024, batch=4)
    found = dict(alternatives(card, wanted, 20_000_000))
    assert "batch 1" in found and all(smaller.total_bytes <= HEADROOM * 20_000_000 for smaller in found.values())
    assert "would fit: batch 1" in advice(card, wanted, 20_000_000)
    assert "a smaller model" in advice(card, wanted, 10)
    with pytest.raises(InputError, match="neither memory"):
        estimate({"name": "silent"})


def test_a_repository_that_no_card_lists_is_recognised_by_its_configuration(toy: Path, fake_hub: FakeHub) -> None:  # noqa: F811
    fake_hub.add("someone/finetune", {"config.json": b'{"kind": {"name": "toi"}, "width": 5}', "notes.txt": b"x"})
    fake_hub.add("someone/else", {"config.json": b'{"kind": {"name": "unheard of"}}'})
    fake_hub.add("someone/bare", {"notes.txt": b"x"})
    model = load("hf://someone/finetune", device="cpu")
    assert model.name == "toy-model"
    with pytest.raises(UnknownModelError, match="no installed plugin recognises"):
        load("hf://someone/else", device="cpu")
    with pytest.raises(WeightsError):
        load("hf://someone/bare", device="cpu")
