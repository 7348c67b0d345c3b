"""Emoji as a data set: pictures in several drawing styles, with names, keywords and licences.

The pictures come from iconify's npm packages of five permissively licensed sets, the words from ``emojibase-data`` (MIT, English CLDR annotations).
Skin tones, gendered duplicates and country flags are left out: they would spend most of a small model's capacity on near-copies.

The held-out split is drawn by emoji, not by picture: all styles of a held-out emoji are held out.

Example:
    >>> data = build_emoji_set(size=128)                  # doctest: +SKIP
    >>> data.images.shape, data.records[0].name           # doctest: +SKIP
    ((7000, 128, 128, 4), 'grinning face')
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core.datasets.npm import DataUnavailableError, fetch, read_json

if TYPE_CHECKING:
    import numpy as np

FORMAT = 3
WORDS = ("emojibase-data", "17.0.0")


@dataclass(frozen=True, slots=True)
class Style:
    """One drawing style: its caption words, npm package, pinned version and licence."""

    words: str
    package: str
    version: str
    licence: str
    by: str
    names_from: str | None = None
    """Package whose ``chars.json`` names this package's icons, when it has none of its own."""


STYLES: dict[str, Style] = {
    "google": Style("google", "@iconify-json/noto", "1.2.9", "Apache-2.0", "Google (Noto Emoji)"),
    "twitter": Style("twitter", "@iconify-json/twemoji", "1.2.5", "CC-BY-4.0", "Twitter (Twemoji)"),
    "microsoft": Style("microsoft", "@iconify-json/fluent-emoji", "1.2.7", "MIT", "Microsoft (Fluent Emoji)", names_from="flat"),
    "flat": Style("flat", "@iconify-json/fluent-emoji-flat", "1.2.6", "MIT", "Microsoft (Fluent Emoji Flat)"),
    "emojione": Style("emojione", "@iconify-json/emojione", "1.2.3", "CC-BY-4.0", "EmojiOne 2"),
}
GROUPS = ("smileys", "people", "component", "animals", "food", "travel", "activities", "objects", "symbols", "flags")


@dataclass(frozen=True, slots=True)
class EmojiRecord:
    """One picture: ``code`` (hex code points), CLDR ``name`` and ``keywords``, ``group``, ``style`` and ``licence``; ``held_out`` by emoji."""

    code: str
    name: str
    keywords: tuple[str, ...]
    group: str
    style: str
    licence: str
    held_out: bool


@dataclass(slots=True)
class EmojiSet:
    """Pictures [N, size, size, 4] uint8 (straight alpha) and their records, in the same order."""

    images: np.ndarray
    records: list[EmojiRecord]
    meta: dict[str, Any] = field(default_factory=dict)

    def indices(self, *, held_out: bool | None = None, styles: Sequence[str] | None = None) -> list[int]:
        """Positions of the records of one side of the split (``None`` = both) and of the given styles."""
        return [i for i, record in enumerate(self.records) if (held_out is None or record.held_out == held_out) and (styles is None or record.style in styles)]

    def rgb(self, indices: Sequence[int] | None = None, background: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray:
        """Pictures laid on a plain background: uint8 [n, size, size, 3]."""
        import numpy as np

        chosen = self.images if indices is None else self.images[list(indices)]
        alpha = chosen[..., 3:].astype(np.uint16)
        ground = np.asarray(background, np.uint16)
        return ((chosen[..., :3].astype(np.uint16) * alpha + ground * (255 - alpha) + 127) // 255).astype(np.uint8)


def default_folder() -> Path:
    """``$ZOO_DATA`` or ``datasets`` in the zoo's user cache (``$XDG_CACHE_HOME/zoo``, ``~/.cache/zoo``)."""
    if named := os.environ.get("ZOO_DATA"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zoo" / "datasets"


def is_held_out(code: str, fraction: float, seed: int) -> bool:
    """Whether an emoji belongs to the held-out side: a hash of seed and code, the same on every machine and for every style."""
    digest = hashlib.sha256(f"{seed}:{code}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def slug(label: str) -> str:
    """Icon name of a CLDR label: ``"slice of pizza's"`` becomes ``slice-of-pizzas``."""
    text = re.sub(r"['’“”.!]", "", label.lower()).replace("ñ", "n").replace("é", "e").replace("&", "and")
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")


def wanted(entry: dict[str, Any]) -> bool:
    """Base emoji only: no components, no gendered copies, no country or regional flags."""
    code = entry.get("hexcode", "")
    if entry.get("group") is None or GROUPS[entry["group"]] == "component":
        return False
    gendered = re.search("200D-264[02]", code) or re.match("1F46[89]-200D", code)
    country = re.match("1F1[EF][0-9A-F]-1F1", code) or code.startswith("1F3F4-E0")
    return not gendered and not country


def icon_svg(icons: dict[str, Any], name: str) -> str | None:
    """A complete SVG text of one icon of an iconify set (aliases followed, turned or flipped ones skipped); ``None`` when it is not there."""
    for _ in range(5):
        if name in icons["icons"]:
            icon = icons["icons"][name]
            box = [icon.get(key, icons.get(key, default)) for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))]
            view = " ".join(str(value) for value in box)
            return f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{view}">{icon["body"]}</svg>'
        alias = icons.get("aliases", {}).get(name)
        if alias is None or any(key in alias for key in ("rotate", "hFlip", "vFlip")):
            return None
        name = alias["parent"]
    return None


def rasterise(svg: str, size: int) -> np.ndarray:
    """SVG text to uint8 [size, size, 4] with straight alpha, centred on a transparent square."""
    import numpy as np
    import resvg_py
    from PIL import Image

    box = [float(value) for value in re.search(r'viewBox="([^"]+)"', svg).group(1).split()]  # type: ignore[union-attr]
    side: dict[str, Any] = {"height" if box[3] >= box[2] else "width": size}
    made = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True, **side)))).convert("RGBA")
    canvas = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    canvas.paste(made, ((size - made.width) // 2, (size - made.height) // 2))
    return np.asarray(canvas)


def build_emoji_set(
    *,
    size: int = 128,
    styles: Sequence[str] = tuple(STYLES),
    held_out: float = 0.06,
    seed: int = 0,
    folder: str | Path | None = None,
    sources: str | Path | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> EmojiSet:
    """The emoji set at ``size`` pixels, from the cache or built anew (about a minute on one core).

    Args:
        size: Side of the square pictures in pixels.
        styles: Keys of :data:`STYLES`.
        held_out: Share of emoji that are held out (all styles of an emoji together).
        seed: Seed of that split.
        folder: Where tarballs and the built set are kept; default :func:`default_folder`.
        sources: Folder that already holds the npm tarballs; default ``folder/npm``, filled through ``npm pack``.
        log: Receives progress lines.

    Raises:
        DataUnavailableError: A tarball is missing and cannot be fetched, or ``resvg-py`` is not installed.
        ValueError: An unknown style.
    """
    if unknown := [style for style in styles if style not in STYLES]:
        raise ValueError(f"unknown emoji style {unknown[0]!r}; known: {', '.join(STYLES)}")
    home = Path(folder) if folder is not None else default_folder()
    wanted_meta = {"format": FORMAT, "size": size, "styles": list(styles), "held_out": held_out, "seed": seed, "words": list(WORDS)}
    wanted_meta["packages"] = {style: [STYLES[style].package, STYLES[style].version, STYLES[style].licence] for style in styles}
    key = hashlib.sha256(json.dumps(wanted_meta, sort_keys=True).encode()).hexdigest()[:12]
    target = home / f"emoji-{size}-{key}.npz"
    if target.exists():
        return _read(target)
    images, records = _collect(size, styles, held_out, seed, Path(sources) if sources is not None else home / "npm", log)
    result = EmojiSet(images, records, wanted_meta)
    _write(target, result)
    log(f"{len(records)} pictures of {len({r.code for r in records})} emoji, {sum(r.held_out for r in records)} held out: {target}")
    return result


def _collect(size: int, styles: Sequence[str], fraction: float, seed: int, sources: Path, log: Callable[[str], None]) -> tuple[np.ndarray, list[EmojiRecord]]:
    import numpy as np

    try:
        import resvg_py  # noqa: F401
    except ModuleNotFoundError as error:
        raise DataUnavailableError("the emoji pictures cannot be drawn: resvg-py is not installed", fix="pip install resvg-py") from error
    words = read_json(fetch(*WORDS, sources), "en/data.json")
    entries = sorted((entry for entry in words if wanted(entry)), key=lambda entry: entry["order"])
    images: list[Any] = []
    records: list[EmojiRecord] = []
    for style in styles:
        info = STYLES[style]
        tarball = fetch(info.package, info.version, sources)
        icons = read_json(tarball, "icons.json")
        naming = STYLES[info.names_from] if info.names_from else info
        chars = read_json(fetch(naming.package, naming.version, sources), "chars.json") or {}
        before = len(records)
        for entry in entries:
            code = entry["hexcode"].lower()
            names = (chars.get(code), chars.get(code.replace("-fe0f", "")), slug(entry["label"]))
            svg = next((text for name in names if name and (text := icon_svg(icons, name))), None)
            if svg is None:
                continue
            images.append(rasterise(svg, size))
            keywords = tuple(dict.fromkeys(str(tag).lower() for tag in entry.get("tags", ())))
            group = GROUPS[entry["group"]]
            records.append(EmojiRecord(code, entry["label"].lower(), keywords, group, style, info.licence, is_held_out(code, fraction, seed)))
        log(f"{style}: {len(records) - before} of {len(entries)} emoji ({info.licence}, {info.by})")
    return np.stack(images), records


def _write(target: Path, data: EmojiSet) -> None:
    """Atomically, pictures compressed, records as JSON text in the same file (no pickles)."""
    import numpy as np

    target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"meta": data.meta, "records": [asdict(record) for record in data.records]})
    part = target.with_name(f".{target.stem}-{os.getpid()}.npz")
    np.savez_compressed(part, images=data.images, records=np.frombuffer(text.encode(), np.uint8))
    part.replace(target)


def _read(target: Path) -> EmojiSet:
    import numpy as np

    with np.load(target, allow_pickle=False) as file:
        images, text = file["images"], json.loads(file["records"].tobytes().decode())
    records = [EmojiRecord(**{**row, "keywords": tuple(row["keywords"])}) for row in text["records"]]
    return EmojiSet(images, records, text["meta"])
