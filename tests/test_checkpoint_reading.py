"""Opening checkpoints: formats, shards, and the hostile corpus (faults 18, 26, 27)."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zoo_core.checkpoint import open_checkpoint, save_checkpoint, sniff
from zoo_core.errors import CheckpointError, UnsafeFileError, UnsafePathError, ZooError
from zoo_core.names import safe_join, safe_relative
from zoo_core.testing.hostile import UNSAFE_NAMES, HostileFile, safetensors_bytes
from zoo_core.testing.weight_fixtures import hostile_corpus  # noqa: F401

TENSORS = {
    "a.weight": torch.arange(6, dtype=torch.bfloat16).view(2, 3),
    "a.bias": torch.tensor([1.5, -2.0], dtype=torch.float16),
    "count": torch.tensor(7),
    "flag": torch.tensor([True, False]),
    "empty": torch.empty(0, 4),
    "../../odd name": torch.tensor(3.25),
    "f8": torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn),
}


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and one.contiguous().view(-1).view(torch.uint8).equal(other.contiguous().view(-1).view(torch.uint8))
    )


@pytest.mark.parametrize("mmap", [True, False, "auto"])
def test_safetensors_round_trip_and_views(tmp_path: Path, mmap: bool) -> None:
    save_checkpoint(TENSORS, tmp_path / "model.safetensors", metadata={"who": "me"})
    with open_checkpoint(tmp_path, mmap=mmap) as source:
        got = {key: source.get(key) for key in source}
        assert source.metadata()["who"] == "me" and source.file("count") == tmp_path / "model.safetensors"
        assert source.shape("a.weight") == (2, 3) and source.dtype("f8") == torch.float8_e4m3fn
    assert set(got) == set(TENSORS) and all(same(got[key], TENSORS[key]) for key in TENSORS)


def test_mapped_tensors_outlive_the_source_and_never_write_to_the_file(tmp_path: Path) -> None:
    (path,) = save_checkpoint({"a": torch.ones(5000)}, tmp_path / "m.safetensors")
    before = path.read_bytes()
    source = open_checkpoint(path, mmap=True)
    tensor = source.get("a")
    source.close()
    tensor.add_(1)
    assert tensor.sum() == 10000 and path.read_bytes() == before


def test_torch_files_zip_and_legacy_are_unwrapped(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(2)}, "epoch": 3, "step": torch.tensor(5)}, tmp_path / "new.pt")
    torch.save({"a": torch.ones(2)}, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    new, old = open_checkpoint(tmp_path / "new.pt"), open_checkpoint(tmp_path / "old.bin")
    assert new.keys() == ["a"] and new.metadata() == {"epoch": 3, "unwrapped": "state_dict"}
    assert old.get("a").tolist() == [1, 1] and sniff(tmp_path / "old.bin").name == "torch-legacy"


def test_gguf_metadata_and_dequantised_tensors(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    values = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_tensor("f32", values.numpy())
    writer.add_tensor("f16", values.half().numpy())
    for name, kind in (("q8", gguf.GGMLQuantizationType.Q8_0), ("q4", gguf.GGMLQuantizationType.Q4_0)):
        writer.add_tensor(name, gguf.quants.quantize(values.numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    source = open_checkpoint(tmp_path / "m.gguf")
    assert source.metadata()["llama.block_count"] == 2 and source.metadata()["gguf.types"]["q4"] == "Q4_0"
    assert same(source.get("f32"), values) and same(source.get("f16"), values.half())
    for name, worst in (("q8", 0.02), ("q4", 0.3)):
        assert source.shape(name) == (4, 64) and source.dtype(name) == torch.float32
        assert 0 < (source.get(name) - values).abs().max() < worst


def test_shards_with_index_and_as_a_list(tmp_path: Path) -> None:
    files = save_checkpoint(TENSORS, tmp_path / "model.safetensors", max_shard_bytes=12)
    assert len(files) > 3 and files[-1].name == "model.safetensors.index.json"
    for source in (open_checkpoint(tmp_path), open_checkpoint(files[-1]), open_checkpoint(files[:-1])):
        assert set(source.keys()) == set(TENSORS) and all(same(source.get(key), TENSORS[key]) for key in TENSORS)


def test_fault_18_absent_shard_is_named(tmp_path: Path) -> None:
    files = save_checkpoint(TENSORS, tmp_path / "model.safetensors", max_shard_bytes=12)
    files[1].unlink()
    with pytest.raises(CheckpointError, match=f"1 of {len(files) - 1} shards are absent") as caught:
        open_checkpoint(tmp_path)
    assert files[1].name in str(caught.value)


def test_fault_18_one_key_in_two_shards(tmp_path: Path) -> None:
    (one,) = save_checkpoint({"a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "x-1.safetensors")
    (two,) = save_checkpoint({"b": torch.zeros(1)}, tmp_path / "x-2.safetensors")
    with pytest.raises(CheckpointError, match="in two shards") as caught:
        open_checkpoint([one, two])
    assert "'b'" in str(caught.value) and "x-1" in str(caught.value) and "x-2" in str(caught.value)


def test_fault_18_index_and_shards_disagree(tmp_path: Path) -> None:
    save_checkpoint({"a": torch.ones(1)}, tmp_path / "x-1.safetensors")
    (tmp_path / "x.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "x-1.safetensors", "gone": "x-1.safetensors"}}))
    with pytest.raises(CheckpointError, match="disagree on 1 tensors"):
        open_checkpoint(tmp_path)


def test_folders_without_or_with_several_weights(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(CheckpointError, match="no weight files"):
        open_checkpoint(tmp_path)
    save_checkpoint({"a": torch.ones(1)}, tmp_path / "one.safetensors")
    assert open_checkpoint(tmp_path).keys() == ["a"]
    save_checkpoint({"a": torch.ones(1)}, tmp_path / "two.safetensors")
    with pytest.raises(CheckpointError, match="2 weight files"):
        open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        open_checkpoint(tmp_path / "absent.safetensors")


def test_faults_26_27_hostile_files_are_named_for_what_they_are(hostile_corpus: list[HostileFile]) -> None:  # noqa: F811
    assert len(hostile_corpus) >= 30
    wrong = []
    for item in hostile_corpus:
        try:
            open_checkpoint(item.path)
            wrong.append(f"{item.name}: was opened")
        except ZooError as error:
            if not isinstance(error, item.error) or item.says.lower() not in str(error).lower() or not str(error).count("fix:"):
                wrong.append(f"{item.name}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


def test_fault_27_pickle_under_a_safetensors_name_gives_the_conversion_command(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UnsafeFileError, match=r"zoo load-check .* --save"):
        open_checkpoint(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", UNSAFE_NAMES, ids=lambda name: repr(name)[:30])
def test_fault_26_unsafe_names_are_refused_before_the_disk(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafePathError):
        safe_relative(name)
    with pytest.raises(UnsafePathError):
        safe_join(tmp_path, name)
    assert not list(tmp_path.iterdir())


@given(st.text(max_size=40))
def test_fault_26_whatever_passes_stays_inside(name: str) -> None:
    root = Path("/root/cache")
    try:
        path = safe_join(root, name)
    except UnsafePathError:
        return
    assert root in path.parents and ".." not in path.parts and "\0" not in str(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_safetensors_never_crash_or_pass_wrongly(tmp_path: Path, data: st.DataObject) -> None:
    good = safetensors_bytes(
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "b": {"dtype": "U8", "shape": [3], "data_offsets": [8, 11]}},
        struct.pack("<2f3B", 1, 2, 3, 4, 5),
    )
    where = data.draw(st.integers(0, len(good) - 1))
    bad = data.draw(
        st.one_of(
            st.just(good[:where]),
            st.binary(min_size=1, max_size=3).map(lambda extra: good[:where] + extra + good[where + len(extra) :]),
            st.binary(min_size=1, max_size=3).map(lambda extra: good[:where] + extra + good[where:]),
        )
    )
    path = tmp_path / "x.safetensors"
    path.write_bytes(bad)
    try:
        source = open_checkpoint(path)
    except ZooError:
        return
    for key in source:
        tensor = source.get(key)
        assert tuple(tensor.shape) == source.shape(key) and tensor.dtype == source.dtype(key)
