"""Key maps: every step goes there and back exactly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_core.checkpoint import Drop, Fuse, KeyMap, Rename, Reshape, Split, Table, Transpose, detect_layout, open_checkpoint, save_checkpoint
from zoo_core.checkpoint.template import AxisFormula, Template
from zoo_core.errors import CheckpointError
from zoo_core.specs import WeightsSpec


def back_and_forth(tensors: dict[str, torch.Tensor], keymap: KeyMap) -> dict[str, torch.Tensor]:
    """Apply, check, undo; what comes back must be bitwise what went in."""
    keymap.check(tensors)
    view = keymap.apply(tensors)
    there = {key: view.get(key) for key in view}
    for key in view:
        assert tuple(there[key].shape) == view.shape(key) and there[key].dtype == view.dtype(key)
    undone = keymap.inverse().apply(there)
    assert set(undone.keys()) == set(tensors)
    assert all(torch.equal(undone.get(key), value) for key, value in tensors.items())
    return there


def numbered(*shape: int) -> torch.Tensor:
    count = 1
    for side in shape:
        count *= side
    return torch.arange(count).view(shape)


def test_every_step_is_invertible() -> None:
    tensors = {
        "module.stages.0.op_list.1.qkv.conv.weight": numbered(12, 4, 1, 1),
        "module.stages.0.op_list.1.proj.weight": numbered(4, 4),
        "module.head.q": numbered(8, 3),
        "module.head.k": numbered(2, 3) + 100,
        "module.swap.a": numbered(2),
        "module.swap.b": numbered(3),
    }
    keymap = KeyMap(
        [
            Rename("module.{rest*}", "{rest*}"),
            Rename("stages.{s:int}.op_list.{j:int}.{rest*}", "down_blocks.{s}.{j}.{rest*}"),
            Split("{p*}.qkv.conv.weight", ["{p*}.to_q.weight", "{p*}.to_k.weight", "{p*}.to_v.weight"]),
            Reshape("{p*}.to_{x:q|k|v}.weight", "o i 1 1 -> o i"),
            Transpose("{p*}.proj.weight", (1, 0)),
            Fuse(["head.q", "head.k"], "head.qk", sizes=[8, 2]),
            Table({"swap.a": "swap.b", "swap.b": "swap.a"}),
        ]
    )
    there = back_and_forth(tensors, keymap)
    assert torch.equal(there["down_blocks.0.1.to_k.weight"], numbered(12, 4)[4:8])
    assert torch.equal(there["down_blocks.0.1.proj.weight"], numbered(4, 4).T)
    assert there["head.qk"].shape == (10, 3) and there["swap.a"].shape == (3,)
    assert "Split(" in repr(keymap) and not keymap.lossy


def test_nothing_is_read_until_asked_for() -> None:
    class Source:  # fails on any read
        pass

    from zoo_core.checkpoint import DictSource

    class Untouchable(DictSource):
        def get(self, key: str) -> torch.Tensor:
            raise AssertionError("read")

    view = KeyMap([Split("a", ["b", "c"]), Transpose("b", (1, 0))]).apply(Untouchable({"a": numbered(4, 3)}))
    assert view.shape("b") == (3, 2) and view.dtype("c") == torch.int64 and view.leaves("c") == ("a",)


def test_drop_is_listed_as_lossy() -> None:
    keymap = KeyMap([Drop("{p*}.num_batches_tracked", "only counts steps"), Rename("{p*}.w", "{p*}.weight")])
    tensors = {"a.w": numbered(2), "a.num_batches_tracked": numbered(1)}
    assert keymap.apply(tensors).keys() == ["a.weight"]
    assert keymap.lossy[0].why == "only counts steps"
    keymap.check(tensors)
    assert keymap.inverse().apply(keymap.apply(tensors)).keys() == ["a.w"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Rename("{a}.x", "{b}.x"), "different slots"),
        (lambda: Rename("{a.x", "y"), "brace"),
        (lambda: Rename("{a:int}.x", "{a*}"), "two kinds"),
        (lambda: Split("a", ["b"]), "two or more"),
        (lambda: Split("a", ["b", "c"], sizes=[1]), "one size"),
        (lambda: Transpose("a", (0, 2)), "permutation"),
        (lambda: Reshape("a", "(h d) -> h d"), "ambiguous"),
        (lambda: Reshape("a", "a b -> a"), "not valid"),
        (lambda: KeyMap([Rename("{x}.a", "{x}.b")]).apply({"k.a": numbered(1), "k.b": numbered(1)}), "two tensors to 'k.b'"),
        (lambda: KeyMap([Split("a", ["b", "c"])]).apply({"a": numbered(3)}), "cannot be split"),
        (lambda: KeyMap([Fuse(["a", "b"], "c")]).apply({"a": numbered(3)}), "has only 'a'"),
        (lambda: KeyMap([Fuse(["a", "b"], "c")]).apply({"a": numbered(3), "b": numbered(2)}), "sizes="),
        (lambda: KeyMap([Fuse(["a", "b"], "c")]).apply({"a": numbered(3, 2), "b": numbered(3, 4)}), "do not fit together"),
        (lambda: KeyMap([Transpose("a", (1, 0))]).apply({"a": numbered(3)}), "does not fit"),
        (lambda: KeyMap([Reshape("a", "(h d) -> h d", h=2)]).apply({"a": numbered(3)}), "does not fit"),
        (lambda: Table({"a": "c", "b": "c"}).inverse(), "cannot be inverted"),
        (lambda: KeyMap([Rename("a.{x}", "b.{x}")]).check({"a.x": numbered(1), "b.y": numbered(1)}), "does not lead back"),
    ],
)
def test_impossible_maps_are_refused_with_the_reason(make: object, says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        make()  # type: ignore[operator]


NAMES = st.lists(st.sampled_from(["w", "x", "blocks", "0", "1", "17", "norm"]), min_size=1, max_size=4).map(".".join)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(NAMES, st.tuples(st.integers(1, 4), st.integers(1, 5)), min_size=1, max_size=5),
    st.integers(2, 3),
    st.integers(0, 1),
    st.booleans(),
    st.data(),
)
def test_property_split_fuse_transpose_rename_round_trip(
    shapes: dict[str, tuple[int, int]], parts: int, dim: int, transpose: bool, data: st.DataObject
) -> None:
    sizes = data.draw(st.one_of(st.none(), st.lists(st.integers(1, 3), min_size=parts, max_size=parts)))
    side = parts * 2 if sizes is None else sum(sizes)
    tensors = {
        f"pre.{name}.qkv": numbered(*[side if axis == dim else shape[axis] for axis in (0, 1)]) + index * 1000
        for index, (name, shape) in enumerate(shapes.items())
    }
    steps = [Split("pre.{p*}.qkv", [f"pre.{{p*}}.part{index}" for index in range(parts)], dim, sizes), Rename("pre.{p*}.part{n:int}", "{p*}/{n}.post")]
    if transpose:
        steps.append(Transpose("{p*}/{n:int}.post", (1, 0)))
    keymap = KeyMap(steps)
    there = back_and_forth(tensors, keymap)
    back_and_forth(there, keymap.inverse())


@settings(max_examples=100, deadline=None)
@given(st.permutations(["a", "b", "c"]), st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)), st.integers(0, 2), st.integers(0, 2))
def test_property_axis_formulas_are_inverted_exactly(order: list[str], lengths: tuple[int, int, int], cut: int, other: int) -> None:
    def side(names: list[str], at: int) -> str:
        return " ".join([f"({' '.join(names[:at])})"] * bool(at) + names[at:] + ["1"])

    sizes = dict(zip("abc", lengths))
    formula = AxisFormula(f"{side(['a', 'b', 'c'], cut)} -> {side(list(order), other)}", **sizes)
    flat = numbered(*lengths)
    start = flat.reshape(*([flat.shape[:cut].numel()] * bool(cut)), *lengths[cut:], 1)
    result = formula(start)
    assert torch.equal(formula.inverse()(result), start)
    assert torch.equal(result.flatten(), flat.permute(["abc".index(name) for name in order]).flatten())


@given(st.text("ab.01", min_size=1, max_size=12))
def test_property_templates_give_back_the_key(key: str) -> None:
    for text in ("{x*}", "{x}.{y*}", "a{x*}b", "{p*}.{i:int}", "{w:a|ab|b}.{r*}"):
        template = Template(text)
        slots = template.match(key)
        if slots is not None:
            assert template.format(slots) == key


def test_saved_through_a_map_a_file_has_the_published_layout(tmp_path) -> None:  # type: ignore[no-untyped-def]
    keymap = KeyMap([Rename("net.{k*}", "{k*}"), Split("qk", ["q", "k"])])
    save_checkpoint({"q": numbered(2, 2), "k": numbered(2, 2) + 9}, tmp_path / "m.safetensors", keymap=keymap)
    source = open_checkpoint(tmp_path)
    assert source.keys() == ["net.qk"] and source.shape("net.qk") == (4, 2)
    assert torch.equal(keymap.apply(source).get("k"), numbered(2, 2) + 9)


def test_layouts_are_told_apart_by_keys() -> None:
    layouts = {
        "original": WeightsSpec(name="original", detect=(r"^encoder\.stages\.", r"\.op_list\.")),
        "diffusers": WeightsSpec(name="diffusers", detect=(r"^encoder\.down_blocks\.",)),
        "loose": WeightsSpec(name="loose", detect=(r"^encoder\.",)),
    }
    two = {name: layouts[name] for name in ("original", "diffusers")}
    assert detect_layout(["encoder.stages.0.op_list.0.w"], two) == "original"
    assert detect_layout(["encoder.down_blocks.0.w"], two) == "diffusers"
    with pytest.raises(CheckpointError, match="none of the known layouts"):
        detect_layout(["decoder.w"], two)
    with pytest.raises(CheckpointError, match="several layouts: diffusers, loose"):
        detect_layout(["encoder.down_blocks.0.w"], layouts)
    assert detect_layout(["x"], {"only": WeightsSpec(name="only")}) == "only"
