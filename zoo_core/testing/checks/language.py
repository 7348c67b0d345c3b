"""Contracts of language models: text in, text out; and of models that also see pictures."""

from __future__ import annotations

import functools
import math
from typing import Any

from zoo_core.testing.checks import check
from zoo_core.testing.checks.images import NEEDS, of_task, refuses
from zoo_core.testing.subject import Subject

MODELS = of_task("causal-lm")
SEEING = of_task("vision-language")
TEXT = "The quick brown fox"


@check("language.generate", items=MODELS, needs=NEEDS)
def generate(subject: Subject, item: str) -> None:
    """``generate`` returns a ``TextResult`` with one text per prompt, within the number of new tokens, the same every time."""
    from zoo_core.interfaces import TextResult

    handle = subject.handle(item)
    made = handle.generate([TEXT, "One"], max_new_tokens=6)
    assert isinstance(made, TextResult), f"{item}: generate returns a {type(made).__name__}, expected a TextResult"
    assert len(made.texts) == 2 and all(isinstance(text, str) for text in made.texts), f"{item}: two prompts gave {made.texts!r}"
    assert len(made.token_ids) == 2 and all(len(ids) <= 6 for ids in made.token_ids), f"{item}: more than 6 new tokens, or no token_ids"
    again = handle.generate([TEXT, "One"], max_new_tokens=6)
    assert made.token_ids == again.token_ids, f"{item}: greedy decoding gives different texts"


@check("language.batch", items=MODELS, needs=(*NEEDS, "language.generate"))
def batch(subject: Subject, item: str) -> None:
    """Prompts of different lengths in one batch give what each gives alone."""
    handle = subject.handle(item)
    together = handle.generate([TEXT, "One"], max_new_tokens=6).token_ids
    alone = [handle.generate(text, max_new_tokens=6).token_ids[0] for text in (TEXT, "One")]
    assert together == alone, f"{item}: a batch gives {together}, single prompts give {alone}"


@check("language.sampling", items=MODELS, needs=(*NEEDS, "language.generate"))
def sampling(subject: Subject, item: str) -> None:
    """Sampling depends on the seed alone and leaves the global random state as it was."""
    import torch

    handle = subject.handle(item)
    before = torch.random.get_rng_state()
    runs = [handle.generate(TEXT, max_new_tokens=8, temperature=1.0, seed=seed).token_ids for seed in (1, 1, 2, 3)]
    assert torch.equal(before, torch.random.get_rng_state()), f"{item}: generate(seed=...) changes the global random state"
    assert runs[0] == runs[1], f"{item}: the same seed gives different texts"
    assert runs[0] != runs[2] or runs[0] != runs[3], f"{item}: three seeds give one text at temperature 1"


@check("language.stream", items=MODELS, needs=(*NEEDS, "language.generate"))
def stream(subject: Subject, item: str) -> None:
    """The pieces of ``stream`` joined are the text of ``generate``."""
    handle = subject.handle(item)
    pieces = list(handle.stream(TEXT, max_new_tokens=6))
    assert all(isinstance(piece, str) for piece in pieces), f"{item}: stream yields something that is no text"
    whole = handle.generate(TEXT, max_new_tokens=6).texts[0]
    assert "".join(pieces) == whole, f"{item}: stream gives {''.join(pieces)!r}, generate gives {whole!r}"


@check("language.likelihood", items=MODELS, needs=(*NEEDS, "language.generate"))
def likelihood(subject: Subject, item: str) -> None:
    """``loglikelihood`` gives a finite sum <= 0 and a token count per text, the same in a batch and alone."""
    handle = subject.handle(item)
    texts = [TEXT + " jumps", "One two"]
    together = handle.loglikelihood(texts)
    for (total, count), text in zip(together, texts, strict=True):
        assert math.isfinite(total) and total <= 0 and count > 0, f"{item}: loglikelihood({text!r}) is {(total, count)}"
        alone, number = handle.loglikelihood([text])[0]
        assert number == count and abs(alone - total) <= 1e-3 * max(1.0, abs(total)), f"{item}: {text!r} scores {total} in a batch and {alone} alone"
    total, count = handle.loglikelihood([" jumps"], context=[TEXT])[0]
    assert count < together[0][1] and total <= 0, f"{item}: with a context, {count} tokens are scored; without, {together[0][1]}"


@check("language.options", items=MODELS, needs=(*NEEDS, "language.generate"))
def options(subject: Subject, item: str) -> None:
    """Unknown options and values out of range are refused."""
    handle = subject.handle(item)
    refuses(f"{item}: generate(no_such_option=1)", lambda: handle.generate(TEXT, max_new_tokens=2, no_such_option=1))
    bad: tuple[dict[str, Any], ...] = ({"max_new_tokens": 0}, {"max_new_tokens": -1}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5})
    for values in bad:
        refuses(f"{item}: generate({values})", functools.partial(handle.generate, TEXT, **{"max_new_tokens": 2, **values}))
    refuses(f"{item}: generate([])", lambda: handle.generate([], max_new_tokens=2))
    refuses(f"{item}: generate(3)", lambda: handle.generate(3, max_new_tokens=2))


@check("vision-language.generate", items=SEEING, needs=NEEDS)
def see(subject: Subject, item: str) -> None:
    """With a picture, ``generate`` returns a ``TextResult``; unknown options and missing files are refused."""
    from PIL import Image

    from zoo_core.interfaces import TextResult

    handle: Any = subject.handle(item)
    call = {"max_new_tokens": 4, **subject.call(item)}
    made = handle.generate("What is this?", images=[Image.new("RGB", (64, 48), (200, 30, 90))], **call)
    assert isinstance(made, TextResult) and len(made.texts) == 1, f"{item}: generate returns {made!r}"
    refuses(f"{item}: generate(no_such_option=1)", lambda: handle.generate("x", no_such_option=1, **call))
    refuses(f"{item}: a picture that does not exist", lambda: handle.generate("x", images=["no-such-picture.png"], **call))
