"""Evaluators that belong to no paper; the registry lists them beside those of plugins."""

from __future__ import annotations

from zoo_core.specs import EvaluatorSpec

SPECS = (
    EvaluatorSpec(
        name="image-prompts",
        summary="Draw a prompt set (MJHQ-30K, GenEval, text file); CLIP score with a local CLIP model",
        task="text-to-image",
        build="zoo_core.evaluation.images:ImagePrompts",
        metrics={"clip-score": "higher", "seconds-per-image": "lower"},
    ),
    EvaluatorSpec(
        name="image-fid",
        summary="Fréchet distance to reference pictures: FID with local Inception weights, fd-<space> otherwise",
        task="text-to-image",
        build="zoo_core.evaluation.images:ImageFrechet",
        metrics={"fid": "lower", "fd-random-conv": "lower", "fd-pixels": "lower", "clip-score": "higher", "seconds-per-image": "lower"},
    ),
    EvaluatorSpec(
        name="class-fid",
        summary="Fréchet distance of class-conditional pictures, classes in turn: FID with local Inception weights, fd-<space> otherwise",
        task="class-to-image",
        build="zoo_core.evaluation.class_images:ClassFrechet",
        metrics={"fid": "lower", "fd-random-conv": "lower", "fd-pixels": "lower", "seconds-per-image": "lower"},
    ),
    EvaluatorSpec(
        name="image-reconstruction",
        summary="PSNR, SSIM, LPIPS and rFID of an image autoencoder on a folder of pictures",
        task="image-autoencoder",
        build="zoo_core.evaluation.reconstruction:Reconstruction",
        metrics={"psnr": "higher", "ssim": "higher", "lpips": "lower", "rfid": "lower", "rfd-random-conv": "lower", "rfd-pixels": "lower"},
    ),
)
"""Registered under their names by :mod:`zoo_core.registry`, owner ``zoo-core``."""
