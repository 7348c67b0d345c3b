"""Running text for long-context tests.

The default is the reference documentation that every CPython ships (``pydoc_data.topics``, about 0.7 MB of English prose and code, PSF licence):
real text without a download.
Any folder of ``.txt`` files or one file may be given instead (essays, books).
"""

from __future__ import annotations

from pathlib import Path

from zoo_core.errors import InputError


def load_text(source: str | Path | None = None) -> str:
    """Text from a file, from all ``*.txt`` of a folder in name order, or (None) from Python's own documentation.

    Raises:
        InputError: Nothing readable there.
    """
    if source is None:
        from pydoc_data.topics import topics

        return "\n\n".join(topics[name].strip() for name in sorted(topics))
    path = Path(source)
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise InputError(f"text source {str(source)!r} is neither a file nor a folder with .txt files", fix="text=PATH")
    return "\n\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files)


def token_stream(tokenizer: object, text: str, tokens: int, *, offset: int = 0) -> list[int]:
    """``tokens`` ids of ``text`` from token ``offset`` on, repeating the text when it is too short."""
    if not text:
        raise InputError("text source is empty", fix="text=PATH")
    need = offset + tokens
    piece = text[: max(8 * need, 64)]
    ids = list(tokenizer(piece, add_special_tokens=False)["input_ids"])  # type: ignore[operator]
    if len(ids) < need and len(piece) < len(text):
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])  # type: ignore[operator]
    while len(ids) < need:
        ids += ids
    return ids[offset:need]
