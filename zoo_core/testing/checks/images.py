"""Contracts of the tasks that make pictures: text to image, class to image, image autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo_core.testing.checks import check
from zoo_core.testing.checks.building import FIRST
from zoo_core.testing.results import Skipped
from zoo_core.testing.subject import Subject, user_error

NEEDS = (*FIRST, "build.tiny")
LEVELS = 3
"""Largest difference of 8-bit values that counts as the same picture (batched and single runs add in another order)."""


def of_task(*tasks: str) -> Callable[[Subject], list[str]]:
    """Small models of these tasks."""

    def items(subject: Subject) -> list[str]:
        names = [name for name in subject.small_models() if subject.task(name) in tasks]
        if not names:
            raise Skipped(f"no small model of the task {' or '.join(tasks)}")
        return names

    return items


def refuses(what: str, call: Callable[[], Any]) -> None:
    """``call()`` must raise InputError, ValueError or TypeError (any ``ZooError`` will do)."""
    try:
        call()
    except Exception as error:
        assert user_error(error), f"{what}: raises {type(error).__name__} ({error}), which tells the caller nothing; raise InputError"
        return
    raise AssertionError(f"{what}: accepted without a word")


def as_array(image: Any) -> Any:
    import numpy as np

    return np.asarray(image, dtype=np.int16)


def prompts(subject: Subject, item: str) -> tuple[Any, Any]:
    """Two inputs of the model's ``generate``."""
    return ("a red circle", "two green squares") if subject.task(item) == "text-to-image" else (0, 1)


GENERATORS = of_task("text-to-image", "class-to-image")
AUTOENCODERS = of_task("image-autoencoder")


@check("generate.result", items=GENERATORS, needs=NEEDS)
def result(subject: Subject, item: str) -> None:
    """``generate`` returns an ``ImageResult`` with one RGB picture per input, and the callback comes once per step."""
    from PIL import Image

    from zoo_core.interfaces import ImageResult

    handle, call = subject.handle(item), subject.call(item)
    first, second = prompts(subject, item)
    seen: list[tuple[int, int]] = []
    made = handle.generate([first, second], seed=0, callback=lambda step, total, state: seen.append((step, total)), **call)
    assert isinstance(made, ImageResult), f"{item}: generate returns a {type(made).__name__}, expected an ImageResult"
    assert len(made.images) == 2, f"{item}: two inputs gave {len(made.images)} pictures"
    for picture in made.images:
        assert isinstance(picture, Image.Image) and picture.mode == "RGB", f"{item}: a picture is {picture!r}, expected RGB from Pillow"
    totals = {total for _, total in seen}
    assert seen and len(totals) == 1 and len(seen) == totals.pop(), f"{item}: the callback came {len(seen)} times with totals {sorted({t for _, t in seen})}"
    single = handle.generate(first, seed=0, **call)
    assert len(single.images) == 1, f"{item}: one input gave {len(single.images)} pictures"


@check("generate.seed", items=GENERATORS, needs=(*NEEDS, "generate.result"))
def seed(subject: Subject, item: str) -> None:
    """The same seed gives the same picture, another seed another one, and the global random state stays."""
    import torch

    handle, call = subject.handle(item), subject.call(item)
    first, _ = prompts(subject, item)
    before = torch.random.get_rng_state()
    one, two, other = (as_array(handle.generate(first, seed=seed, **call).images[0]) for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state()), f"{item}: generate(seed=...) changes the global random state"
    assert (one == two).all(), f"{item}: the same seed gives different pictures"
    assert (one != other).any(), f"{item}: seeds 3 and 4 give the same picture"


@check("generate.batch", items=GENERATORS, needs=(*NEEDS, "generate.result"))
def batch(subject: Subject, item: str) -> None:
    """Picture ``i`` of a batch is the picture of input ``i`` alone with ``seed + i``."""
    handle, call = subject.handle(item), subject.call(item)
    inputs = prompts(subject, item)
    together = handle.generate(list(inputs), seed=5, **call).images
    for index, value in enumerate(inputs):
        alone = as_array(handle.generate(value, seed=5 + index, **call).images[0])
        worst = int(abs(alone - as_array(together[index])).max())
        assert worst <= LEVELS, f"{item}: picture {index} of a batch differs from the single one by {worst} of 255 levels"


@check("generate.options", items=GENERATORS, needs=(*NEEDS, "generate.result"))
def generate_options(subject: Subject, item: str) -> None:
    """Unknown options and values out of range are refused."""
    import torch

    handle, call = subject.handle(item), subject.call(item)
    first, _ = prompts(subject, item)
    refuses(f"{item}: generate(no_such_option=1)", lambda: handle.generate(first, seed=0, no_such_option=1, **call))
    refuses(f"{item}: generate([])", lambda: handle.generate([], seed=0, **call))
    refuses(f"{item}: generate(steps=0)", lambda: handle.generate(first, seed=0, **{**call, "steps": 0}))
    refuses(f"{item}: generate(seed=0, generator=...)", lambda: handle.generate(first, seed=0, generator=torch.Generator(), **call))
    if subject.task(item) == "text-to-image":
        refuses(f"{item}: generate(3)", lambda: handle.generate(3, seed=0, **call))
        refuses(f"{item}: generate(height=-8)", lambda: handle.generate(first, seed=0, **{**call, "height": -8}))
    else:
        refuses(f"{item}: generate(-1)", lambda: handle.generate(-1, seed=0, **call))
        refuses(f"{item}: generate(10**9)", lambda: handle.generate(10**9, seed=0, **call))


def _pictures(handle: Any, count: int = 2) -> Any:
    """Smooth pictures [count, 3, 4 * ratio, 4 * ratio] in [-1, 1], the same every time."""
    import torch

    side = 4 * int(handle.ratio)
    y, x = torch.meshgrid(torch.linspace(0, 3, side), torch.linspace(0, 3, side), indexing="ij")
    images = torch.stack([torch.stack([torch.sin(x * (n + 1) + c) * torch.cos(y + n) for c in range(3)]) for n in range(count)])
    return images.to(handle.dtype)


@check("autoencoder.shapes", items=AUTOENCODERS, needs=NEEDS)
def shapes(subject: Subject, item: str) -> None:
    """``encode`` gives [B, latent_channels, H/ratio, W/ratio], ``decode`` gives [B, 3, H, W]; both finite and the same every time."""
    import torch

    handle = subject.handle(item)
    images = _pictures(handle)
    latents = handle.encode(images)
    wanted = (2, handle.latent_channels, images.shape[2] // handle.ratio, images.shape[3] // handle.ratio)
    assert tuple(latents.shape) == wanted, f"{item}: encode gives {tuple(latents.shape)}, expected {wanted}"
    decoded = handle.decode(latents)
    assert tuple(decoded.shape) == tuple(images.shape), f"{item}: decode gives {tuple(decoded.shape)}, expected {tuple(images.shape)}"
    assert bool(torch.isfinite(latents).all() and torch.isfinite(decoded).all()), f"{item}: values that are not finite"
    assert not latents.requires_grad and not decoded.requires_grad, f"{item}: the results carry gradients; use torch.inference_mode or no_grad"
    assert torch.equal(latents, handle.encode(images)), f"{item}: encoding twice gives different latents"


@check("autoencoder.batch", items=AUTOENCODERS, needs=(*NEEDS, "autoencoder.shapes"))
def autoencoder_batch(subject: Subject, item: str) -> None:
    """A batch gives what its pictures give alone."""
    import torch

    handle = subject.handle(item)
    images = _pictures(handle)
    together = handle.encode(images)
    alone = torch.cat([handle.encode(images[i : i + 1]) for i in range(2)])
    scale = float(together.float().std()) or 1.0
    worst = float((together - alone).abs().max()) / scale
    assert worst < 1e-3, f"{item}: a batch and its single pictures differ by {worst:.1e} standard deviations"


@check("autoencoder.pictures", items=AUTOENCODERS, needs=(*NEEDS, "autoencoder.shapes"))
def pictures(subject: Subject, item: str) -> None:
    """``reconstruct`` takes pictures of any size and mode and returns RGB pictures of the same sizes."""
    from PIL import Image

    from zoo_core.interfaces import ImageResult

    handle = subject.handle(item)
    side = 2 * int(handle.ratio)
    given = [Image.new("RGB", (side + 3, side - 1), (200, 30, 90)), Image.new("L", (side, side), 77), Image.new("RGBA", (side, 2 * side), (1, 2, 3, 128))]
    made = handle.reconstruct(given)
    assert isinstance(made, ImageResult), f"{item}: reconstruct returns a {type(made).__name__}, expected an ImageResult"
    for before, after in zip(given, made.images, strict=True):
        assert after.size == before.size and after.mode == "RGB", f"{item}: a {before.mode} picture {before.size} came back as {after.mode} {after.size}"


@check("autoencoder.inputs", items=AUTOENCODERS, needs=(*NEEDS, "autoencoder.shapes"))
def autoencoder_inputs(subject: Subject, item: str) -> None:
    """Wrong shapes, sizes, dtypes and unknown options are refused."""
    import torch

    handle = subject.handle(item)
    images = _pictures(handle)
    refuses(f"{item}: encode of one channel", lambda: handle.encode(images[:, :1]))
    refuses(f"{item}: encode without a batch axis", lambda: handle.encode(images[0, 0]))
    refuses(f"{item}: encode of 8-bit integers", lambda: handle.encode(torch.zeros_like(images, dtype=torch.uint8)))
    if handle.ratio > 1:
        refuses(f"{item}: encode of a side that is no multiple of {handle.ratio}", lambda: handle.encode(images[:, :, :, 1:]))
    refuses(
        f"{item}: decode of {handle.latent_channels + 1} channels", lambda: handle.decode(torch.zeros(1, handle.latent_channels + 1, 2, 2, dtype=handle.dtype))
    )
    refuses(f"{item}: encode(no_such_option=1)", lambda: handle.encode(images, no_such_option=1))
