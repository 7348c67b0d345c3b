"""Configurations: precedence, types, near misses."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo_core.config import build_config, nested, override_layers, read_file
from zoo_core.errors import ConfigError


@dataclass
class Part:
    depths: list[int] = field(default_factory=lambda: [1, 2])
    rate: float = 0.5
    name: str = "part"


@dataclass
class Config:
    width: int = 8
    flag: bool = False
    limit: float | None = None
    part: Part = field(default_factory=Part)
    table: dict[str, int] = field(default_factory=dict)
    scales: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.width <= 0:
            raise ValueError(f"width must be positive, not {self.width}")


def test_later_layers_win_and_untouched_values_stay(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("width: 3\npart: {rate: 0.25, name: file}\n")
    config = build_config(Config, {"width": 2, "part": {"name": "entry"}}, read_file(file), ["part.name=said", "scales=[[1],[2,3]]"])
    assert config == Config(width=3, part=Part(rate=0.25, name="said"), scales=[[1], [2, 3]])
    assert isinstance(config.part, Part) and isinstance(config.scales[0], list)


@pytest.mark.parametrize(
    ("override", "key", "close"),
    [("widht=3", "widht", "width"), ("part.dephts=[1]", "part.dephts", "part.depths"), ("prt.rate=1", "prt", "part"), ("part.rate.x=1", "part.rate", None)],
)
def test_fault_25_an_unknown_key_names_the_nearest(override: str, key: str, close: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(Config, ["width=5", override], name="model 'm'")
    assert key in str(caught.value) and str(caught.value).startswith("model 'm'")
    if close:
        assert close in caught.value.fields["suggestions"]


@pytest.mark.parametrize(
    ("override", "key", "wanted"),
    [
        ("width=wide", "width", "int"),
        ("width=2.5", "width", "int"),
        ("width=null", "width", "int"),
        ("flag=3.5", "flag", "bool"),
        ("part.rate=[1]", "part.rate", "float"),
        ("part.depths=[1,x]", "part.depths[1]", "int"),
        ("part=3", "part", "a mapping"),
        ("limit=x", "limit", "float or null"),
        ("scales=[[a]]", "scales", "int"),
    ],
)
def test_fault_25_an_ill_typed_value_names_the_type(override: str, key: str, wanted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(Config, [override])
    assert key in caught.value.what and wanted in str(caught.value)


def test_fault_25_out_of_range_is_the_dataclass_own_check() -> None:
    with pytest.raises(ConfigError, match="width must be positive, not -1"):
        build_config(Config, ["width=-1"])


def test_fault_25_nothing_is_half_applied() -> None:
    values = {"width": 2, "part": {"name": "entry"}}
    with pytest.raises(ConfigError):
        build_config(Config, values, ["width=5", "part.nam=x"])
    assert values == {"width": 2, "part": {"name": "entry"}}
    assert build_config(Config, values).width == 2


@pytest.mark.parametrize("text", ["width", "=3", " =3", "a..b=3"])
def test_malformed_overrides(text: str) -> None:
    with pytest.raises(ConfigError):
        build_config(Config, [text])


def test_a_plain_mapping_keeps_its_keys_and_types() -> None:
    base = {"hidden": 4, "eps": 1e-5, "rope": {"theta": 1.0}, "window": None}
    assert build_config(None, base, {"hidden": 8, "window": 5, "rope.theta": 2}) == {"hidden": 8, "eps": 1e-5, "rope": {"theta": 2}, "window": 5}
    with pytest.raises(ConfigError, match="hiden"):
        build_config(None, base, ["hiden=8"])
    with pytest.raises(ConfigError, match="hidden must be int"):
        build_config(None, base, ["hidden=x"])
    assert base["hidden"] == 4


@pytest.mark.parametrize(("name", "text"), [("a.json", "{"), ("a.yaml", "a: ["), ("a.yaml", "- 1"), ("none.yaml", None)])
def test_bad_files_are_named(tmp_path: Path, name: str, text: str | None) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=name):
        read_file(tmp_path / name)


def test_fault_29_a_decimal_comma_locale_changes_nothing() -> None:
    import locale

    before = locale.setlocale(locale.LC_NUMERIC)
    for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "C"):
        try:
            locale.setlocale(locale.LC_NUMERIC, name)
        except locale.Error:
            continue
        try:
            assert build_config(Config, ["part.rate=0.125"]).part.rate == 0.125
        finally:
            locale.setlocale(locale.LC_NUMERIC, before)


KEYS = st.from_regex(r"[a-z]{1,6}(\.[a-z]{1,6}){0,3}", fullmatch=True)


@given(KEYS, st.one_of(st.integers(-(10**9), 10**9), st.booleans(), st.lists(st.integers(0, 99), max_size=4)))
def test_dotlists_read_back_what_was_written(key: str, value: Any) -> None:
    ((_, layer),) = override_layers([f"{key}={value}"])
    assert layer == nested(key, value)


@given(st.text(max_size=30))
def test_any_dotlist_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        override_layers([text])
