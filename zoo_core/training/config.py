"""Settings that all recipes share."""

from __future__ import annotations

from dataclasses import dataclass

from zoo_core.errors import ConfigError

PRECISIONS = ("float32", "bfloat16")
SCHEDULES = ("constant", "cosine")
PARALLEL = ("fsdp", "replicate")


@dataclass(kw_only=True)
class TrainConfig:
    """Settings of one run.

    A recipe subclasses it (``@dataclass(kw_only=True)``) and adds its own fields; ``zoo train NAME key=value`` checks overrides against it.

    Attributes:
        output: Run folder: ``config.json``, ``log.jsonl``, ``tensorboard/``, ``checkpoints/step-NNNNNNNN/``.
        steps: Optimiser steps in all (not the steps of this process).
        batch_size: Samples per process and micro-batch; one optimiser step sees ``batch_size * accumulate * processes``.
        lr: Peak learning rate; recipes use it when they make their optimisers.
        seed: Seeds Python, NumPy, torch, the data order and ``state.generator``.
        ema: Decay of the exponential moving average of the weights; 0 switches it off.  Warm-up: decay at step t is ``min(ema, (1 + t) / (10 + t))``.
        accumulate: Micro-batches per optimiser step.
        precision: ``bfloat16`` runs the step function under autocast (weights stay float32).
        clip_grad: Largest gradient norm per optimiser; 0 switches clipping off.
        warmup: Steps of linear warm-up from 0.
        schedule: After the warm-up: ``constant``, or ``cosine`` down to ``lr * final_lr`` at ``steps``.
        final_lr: Fraction of the peak that the cosine ends at.
        save_every: Steps between checkpoints (0: only at the end and when interrupted).
        eval_every: Steps between evaluations (0: only at the end).
        log_every: Steps between log lines; scalars are averaged over them.
        resume: ``auto`` goes on from the newest checkpoint in ``output``; ``never`` refuses a folder that has one; else the path of a
            checkpoint or a run folder.
        keep: How many checkpoints to keep (0: all).
        threads: Intra-op CPU threads (0: leave as is).
        max_seconds: Wall time that this process may take (0: unlimited); then it saves a checkpoint and ends cleanly.
        device: ``auto`` (CUDA when there is one), ``cpu``, ``cuda``, ``cuda:1``...
        parallel: Under torchrun: ``fsdp`` shards parameters (FSDP2), ``replicate`` averages gradients of whole copies (needed
            with several optimisers).
        compile: ``torch.compile`` every trained module.
        tensorboard: Also write TensorBoard events when the package is there.
    """

    output: str = "runs/train"
    steps: int = 1000
    batch_size: int = 16
    lr: float = 1e-4
    seed: int = 0
    ema: float = 0.0
    accumulate: int = 1
    precision: str = "float32"
    clip_grad: float = 0.0
    warmup: int = 0
    schedule: str = "constant"
    final_lr: float = 0.0
    save_every: int = 1000
    eval_every: int = 0
    log_every: int = 10
    resume: str = "auto"
    keep: int = 2
    threads: int = 0
    max_seconds: float = 0.0
    device: str = "auto"
    parallel: str = "fsdp"
    compile: bool = False
    tensorboard: bool = True

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Raise :class:`~zoo_core.errors.ConfigError` for a value out of range; recipes extend it."""
        for name, low in (("steps", 1), ("batch_size", 1), ("accumulate", 1), ("log_every", 1)):
            self.require(getattr(self, name) >= low, name, f"a whole number >= {low}")
        for name in ("warmup", "save_every", "eval_every", "keep", "threads", "clip_grad", "max_seconds", "seed"):
            self.require(getattr(self, name) >= 0, name, "a number >= 0")
        self.require(self.lr > 0, "lr", "a number > 0")
        self.require(0 <= self.ema < 1, "ema", "a number in [0, 1)")
        self.require(0 <= self.final_lr <= 1, "final_lr", "a fraction in [0, 1]")
        for name, allowed in (("precision", PRECISIONS), ("schedule", SCHEDULES), ("parallel", PARALLEL)):
            self.require(getattr(self, name) in allowed, name, " or ".join(allowed))

    def require(self, condition: bool, name: str, wanted: str) -> None:
        """For subclasses' ``validate``."""
        if not condition:
            raise ConfigError(f"{type(self).__name__}: {name}={getattr(self, name)!r} is not possible", fix=f"{name}=<{wanted}>", key=name)
