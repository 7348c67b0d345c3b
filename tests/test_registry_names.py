# ruff: noqa: E501 - a table of texts
"""Names: grammar, safety, near misses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo_core.errors import NameSyntaxError
from zoo_core.names import Reference, near_misses, parse

NAMES = st.from_regex(r"[a-z0-9](?:[a-z0-9._-]{0,20}[a-z0-9])?", fullmatch=True).filter(
    lambda s: ".." not in s and s.partition(".")[0] not in ("con", "prn", "aux", "nul") and not s.endswith(".zoo") and s[:3] not in ("com", "lpt")
)
REVISIONS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,20}", fullmatch=True).filter(lambda s: ".." not in s)


@given(NAMES, st.none() | NAMES, st.none() | REVISIONS)
def test_a_formatted_name_parses_to_itself(name: str, variant: str | None, revision: str | None) -> None:
    reference = Reference("name", name, variant, revision)
    if str(reference).endswith(".zoo"):
        return
    assert parse(str(reference)) == reference


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        reference = parse(text)
    except NameSyntaxError:
        return
    assert reference.kind in ("name", "hf", "path", "bundle")
    assert "\0" not in reference.name
    if reference.kind == "name":
        assert not set(reference.name) & set("/\\:~ ") and ".." not in reference.name


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("hf://org/repo@v1", "hf", "org/repo"),
        ("./weights", "path", "./weights"),
        ("/data/weights", "path", "/data/weights"),
        ("local:weights", "path", "weights"),
        ("C:\\weights", "path", "C:\\weights"),
        ("model.zoo", "bundle", "model.zoo"),
    ],
)
def test_forms(text: str, kind: str, name: str) -> None:
    reference = parse(text)
    assert (reference.kind, reference.name) == (kind, name)


@pytest.mark.parametrize(
    "text",
    ["", " ", "a\0b", "a\nb", "Sana", "a/b", "a..b", "nul", "con.txt", "lpt1", "a@", "a@B", "a#", "a#../x", "a@../x", "http://x/y", "hf://x", "hf://../y", "hf://a/b@../c", "local:", "a" * 200,
     "-a", "a-", "a b", "é"],
)  # fmt: skip
def test_fault_26_unsafe_or_malformed_names_are_refused(text: str) -> None:
    with pytest.raises(NameSyntaxError) as caught:
        parse(text)
    assert caught.value.fix


def test_hints_for_common_slips() -> None:
    with pytest.raises(NameSyntaxError, match="names are written in lower case: sana"):
        parse("Sana")
    with pytest.raises(NameSyntaxError, match="hf://org/repo"):
        parse("org/repo")


def test_near_misses_are_at_most_five_and_sensible() -> None:
    known = [f"model-{i}" for i in range(50)] + ["sana-emoji"]
    assert near_misses("sanna-emoji", known)[0] == "sana-emoji"
    assert len(near_misses("model-", known)) == 5
    assert near_misses("zzzzzzzz", known) == []
