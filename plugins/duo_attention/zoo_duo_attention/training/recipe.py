"""``zoo train duo/heads``: learn which heads need the whole context, on any supported language model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo_core.training.config import TrainConfig


@dataclass(kw_only=True)
class HeadsConfig(TrainConfig):
    """Settings of head identification; the defaults are the published run's (section 2.1), sized for an 8-billion model on GPUs.

    Attributes:
        model: Catalogue name or path of the language model.
        sink, recent: Sizes of streaming heads during training.
        reg_weight: Weight of the mean absolute gate.
        context_length_min, context_length_max, num_passkeys, passkey_length, intervals, depth_intervals, buffer_size: See ``MultiPasskeyData``.
        alphabet, labelled: See ``MultiPasskeyData``; the defaults are the published ones.
        text: Haystack file or folder (None: Python's own documentation).
        initial_value: First value of every gate.
        initial_pattern: Pattern directory whose values the gates start from instead (a step along the regularisation path).
    """

    output: str = "runs/duo-heads"
    model: str = "smollm2-135m-instruct"
    dtype: str = "float32"
    steps: int = 2000
    batch_size: int = 1
    lr: float = 0.02
    seed: int = 42
    save_every: int = 50
    sink: int = 128
    recent: int = 256
    reg_weight: float = 0.05
    context_length_min: int = 1000
    context_length_max: int = 32000
    num_passkeys: int = 10
    passkey_length: int = 32
    intervals: int = 50
    depth_intervals: int = 1000
    buffer_size: int = 300
    alphabet: str = "words"
    labelled: str = "tail"
    text: str | None = None
    initial_value: float = 1.0
    initial_pattern: str | None = None
    checkpointing: bool = False

    def validate(self) -> None:
        super().validate()
        self.require(self.batch_size == 1, "batch_size", "1 (items differ in length; use accumulate or more processes)")
        self.require(self.alphabet in ("words", "digits", "mixed"), "alphabet", "words, digits or mixed")
        self.require(self.labelled in ("tail", "answers"), "labelled", "tail or answers")
        self.require(self.sink >= 0, "sink", "a number >= 0")
        self.require(self.recent >= 1, "recent", "a number >= 1")
        self.require(0 < self.context_length_min <= self.context_length_max, "context_length_min", "at most context_length_max")


def train_heads(config: HeadsConfig) -> dict[str, Any]:
    """Run the recipe; writes ``<output>/pattern/`` in the published layout and ``<output>/pattern.png``.

    Returns:
        The trainer's summary plus ``pattern`` (folder) and ``share_above_half``.
    """
    import torch
    from zoo_llm.evaluation.text import load_text

    from zoo_core.loading import load
    from zoo_core.training import Trainer
    from zoo_duo_attention.heatmap import draw_pattern
    from zoo_duo_attention.patterns import read_pattern, write_pattern
    from zoo_duo_attention.training.data import MultiPasskeyData, PasskeyStream, pieces
    from zoo_duo_attention.training.objective import HeadGates, identification, losses, lr_factor, two_way

    if config.threads:
        torch.set_num_threads(config.threads)
    handle = load(config.model, device=config.device, dtype=config.dtype)
    model = handle.module
    if config.checkpointing:
        model.gradient_checkpointing_enable()
    gates = HeadGates.for_model(model, config.initial_value)
    if config.initial_pattern:
        gates.start_from(read_pattern(config.initial_pattern).alphas)
    data = MultiPasskeyData(
        pieces(load_text(config.text)),
        handle.tokenizer,  # type: ignore[attr-defined]
        passkey_length=config.passkey_length,
        num_passkeys=config.num_passkeys,
        context_length_min=config.context_length_min,
        context_length_max=config.context_length_max,
        intervals=config.intervals,
        depth_intervals=config.depth_intervals,
        buffer_size=config.buffer_size,
        generator=torch.Generator().manual_seed(config.seed),
        alphabet=config.alphabet,
        labelled=config.labelled,
    )

    def step(item: Any, state: Any) -> dict[str, torch.Tensor]:
        gates.clamp_()
        ids, labels = item.input_ids[None].to(model.device), item.labels[None].to(model.device)
        teacher, student = two_way(model, gates, ids, sink=config.sink, recent=config.recent)
        result = losses(teacher, student, labels, gates, config.reg_weight)
        return {**result, "open": (gates.alphas.detach() > 0.5).float().mean()}

    trainer = Trainer(
        config,
        {"gates": gates},
        {"gates": lambda parameters: torch.optim.AdamW(parameters, lr=config.lr, weight_decay=0.0)},
        step,
        PasskeyStream(data, config.seed),
        schedule=lambda index, name: lr_factor(index, config.steps),
        title="duo/heads",
    )
    with identification(model):
        summary = trainer.run()
    alphas = gates.alphas.detach().double().cpu().numpy()
    settings = {
        "model_name": config.model,
        "dataset_format": "multiple_passkey",
        "sink_size": config.sink,
        "recent_size": config.recent,
        **{
            k: v
            for k, v in asdict(config).items()
            if k
            in (
                "lr",
                "seed",
                "reg_weight",
                "context_length_min",
                "context_length_max",
                "num_passkeys",
                "passkey_length",
                "initial_value",
                "alphabet",
                "labelled",
                "dtype",
            )
        },
        "num_steps": summary["step"],
    }
    folder = write_pattern(Path(config.output) / "pattern", alphas, settings)
    picture = draw_pattern(alphas, Path(config.output) / "pattern.png", title=f"{config.model}: gates after {summary['step']} steps")
    return {**summary, "pattern": str(folder), "picture": str(picture), "share_above_half": float((alphas > 0.5).mean())}
