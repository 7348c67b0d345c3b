"""Inference-time scaling: draw several candidates per picture and keep the one that a verifier prefers (SANA-1.5, section on inference scaling)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zoo_core.errors import InputError
from zoo_core.interfaces import ImageResult

if TYPE_CHECKING:
    from zoo_sana.model import Chooser, Sana


def best_of_n(model: Sana, prompts: Sequence[str], n: int, choose: Chooser | None, *, seed: int | None, **options: Any) -> ImageResult:
    """For every picture draw ``n`` candidates and keep one.

    Args:
        choose: ``choose(prompt, candidates) -> index``.
        seed: Candidate j of picture i uses ``seed + i * n + j``; None draws a seed.

    Raises:
        InputError: No verifier, an index out of range, or options that fix the noise.
    """
    import torch

    if choose is None:
        raise InputError(f"best_of={n} needs a verifier", fix="choose=lambda prompt, pictures: index_of_the_best")
    if options.get("latents") is not None or options.get("generator") is not None:
        raise InputError("best_of draws its own noise; latents and generator cannot be given", fix="use seed=")
    if options.get("output") != "pil":
        raise InputError("best_of compares pictures", fix="output='pil'")
    if seed is None:
        seed = int(torch.randint(0, 2**31 - 1, ()))
    copies = options.pop("images_per_prompt", 1)
    images, chosen, seconds = [], [], {}
    number = 0
    for prompt in prompts:
        for _ in range(copies):
            run = model.generate(prompt, images_per_prompt=n, seed=seed + number * n, **options)
            index = choose(prompt, run.images)
            if not isinstance(index, int) or not 0 <= index < n:
                raise InputError(f"choose returned {index!r} for {n} candidates", fix=f"return a whole number from 0 to {n - 1}")
            images.append(run.images[index])
            chosen.append(seed + number * n + index)
            for phase, value in run.seconds.items():
                seconds[phase] = seconds.get(phase, 0.0) + value
            number += 1
    return ImageResult(images, None, seed, seconds, {"best_of": n, "chosen_seeds": chosen})
