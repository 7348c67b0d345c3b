"""The emoji data set from tiny fake npm tarballs: no network, no real pictures."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from zoo_core.datasets import emoji, npm

WORDS = [
    {"label": "red apple", "hexcode": "1F34E", "group": 4, "order": 1, "tags": ["fruit", "Red"]},
    {"label": "pizza", "hexcode": "1F355", "group": 4, "order": 2, "tags": ["cheese", "slice"]},
    {"label": "light skin tone", "hexcode": "1F3FB", "group": 2, "order": 3},
    {"label": "woman running", "hexcode": "1F3C3-200D-2640-FE0F", "group": 1, "order": 4},
    {"label": "flag: France", "hexcode": "1F1EB-1F1F7", "group": 9, "order": 5},
    {"label": "regional indicator A", "hexcode": "1F1E6"},
]
SQUARE = '<path fill="#ff0000" d="M0 0h10v10H0z"/>'
ICONS = {"width": 10, "height": 10, "icons": {"red-apple": {"body": SQUARE}, "slice": {"body": SQUARE, "height": 5}}, "aliases": {"pizza": {"parent": "slice"}}}


def pack(folder: Path, package: str, version: str, members: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / npm.tarball_name(package, version), "w:gz") as archive:
        for name, content in members.items():
            data = json.dumps(content).encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "npm"
    pack(folder, *emoji.WORDS, {"en/data.json": WORDS})
    google = emoji.STYLES["google"]
    pack(folder, google.package, google.version, {"icons.json": ICONS, "chars.json": {"1f34e": "red-apple"}})
    return folder


def test_builds_from_tarballs_and_reads_back(tmp_path: Path, sources: Path) -> None:
    pytest.importorskip("resvg_py")
    built = emoji.build_emoji_set(size=16, styles=("google",), folder=tmp_path, sources=sources)
    assert [(r.code, r.name, r.keywords) for r in built.records] == [("1f34e", "red apple", ("fruit", "red")), ("1f355", "pizza", ("cheese", "slice"))]
    assert {r.licence for r in built.records} == {"Apache-2.0"}
    assert built.images.shape == (2, 16, 16, 4)
    assert built.images[0, 8, 8].tolist() == [255, 0, 0, 255]
    assert built.images[1, 0, 0, 3] == 0, "a wide icon is centred on a transparent square"
    assert built.rgb([1])[0, 0, 0].tolist() == [255, 255, 255]
    again = emoji.build_emoji_set(size=16, styles=("google",), folder=tmp_path, sources=tmp_path / "nowhere")
    assert again.records == built.records
    assert (again.images == built.images).all()


def test_split_is_by_emoji_and_deterministic() -> None:
    codes = [f"{value:x}" for value in range(0x1F300, 0x1F700)]
    held = [emoji.is_held_out(code, 0.06, 0) for code in codes]
    assert held == [emoji.is_held_out(code, 0.06, 0) for code in codes]
    assert 0.03 < sum(held) / len(held) < 0.1
    assert held != [emoji.is_held_out(code, 0.06, 1) for code in codes]


def test_missing_tarball_names_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npm.shutil, "which", lambda name: None)
    with pytest.raises(npm.DataUnavailableError, match="not at hand") as caught:
        npm.fetch("@iconify-json/noto", "1.2.9", tmp_path)
    assert "npm pack @iconify-json/noto@1.2.9" in str(caught.value)


@pytest.mark.parametrize(("package", "version"), [("../evil", "1.0.0"), ("ok", "latest"), ("a b", "1.0.0"), ("--flag", "1.0.0")])
def test_names_are_checked_before_they_become_paths_or_arguments(package: str, version: str) -> None:
    with pytest.raises(npm.DataUnavailableError, match="exact version"):
        npm.tarball_name(package, version)


def test_unknown_style_is_named() -> None:
    with pytest.raises(ValueError, match="'apple'"):
        emoji.build_emoji_set(styles=("apple",))
