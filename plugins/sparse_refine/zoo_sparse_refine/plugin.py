"""What the plugin registers: data and targets only."""

from __future__ import annotations

from zoo_core import hookimpl
from zoo_core.specs import BenchmarkSpec, ClaimSpec, ConformanceSpec, EvaluatorSpec, ParitySpec, RecipeSpec, WeightsSpec

KINDS = ("baseline", "entropy-selector", "sparse-conv-layout", "sparse-unet", "gated-ensembler", "refine-step", "refine-step-features")
BASELINES = ("hrnet-w48", "segformer-b5", "segnext-l", "mask2former-t", "mask2former-l")
TINY = {
    "baseline.kind": "transformers",
    "baseline.model": {
        "model_type": "segformer",
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [8, 8, 16, 16],
        "num_attention_heads": [1, 1, 2, 2],
        "decoder_hidden_size": 16,
    },
    "baseline.height": 32,
    "baseline.width": 32,
    "height": 64,
    "width": 64,
    "refiner.reps": [1, 1],
    "refiner.planes": [4, 8],
}


@hookimpl
def zoo_weights() -> list[WeightsSpec]:
    return [
        WeightsSpec(
            name="mmseg-dense",
            summary="dense baselines as mmsegmentation saves them (.pth or safetensors)",
            detect=(r"^backbone\.(?!net\.)", r"^decode_head\."),
        ),
        WeightsSpec(name="transformers-dense", summary="dense baselines of transformers", detect=(r"^segformer\.", r"^decode_head\.linear_c")),
        WeightsSpec(
            name="sparse-refiner",
            summary="the reference's refiner, plain state dictionary",
            keymap="zoo_sparse_refine.layouts:refiner_keymap",
            detect=(r"^backbone\.net\.0\.kernel$",),
        ),
        WeightsSpec(
            name="sparse-refiner-lightning",
            summary="the reference's training checkpoints",
            keymap="zoo_sparse_refine.layouts:lightning_keymap",
            detect=(r"^model\.backbone\.net\.0\.kernel$",),
        ),
    ]


@hookimpl
def zoo_parity() -> list[ParitySpec]:
    return [ParitySpec(name=kind, run=f"zoo_sparse_refine.parity:{kind.replace('-', '_')}") for kind in KINDS]


@hookimpl
def zoo_evaluators() -> list[EvaluatorSpec]:
    return [
        EvaluatorSpec(
            name="segmentation",
            summary="mIoU, boundary IoU, accuracy, IoU of each class and time per picture on generated streets, Cityscapes, BDD100K, DeepGlobe or ISIC folders",
            task="semantic-segmentation",
            build="zoo_sparse_refine.evaluation.segmentation:Segmentation",
            metrics={
                "miou": "higher",
                "miou_present": "higher",
                "boundary_iou": "higher",
                "pixel_accuracy": "higher",
                "picture_miou": "higher",
                "ms_p50": "lower",
                "ms_p95": "lower",
                "refined_share": "lower",
            },
        )
    ]


@hookimpl
def zoo_recipes() -> list[RecipeSpec]:
    return [
        RecipeSpec(
            name="sparse-refine/dense",
            summary="a small dense model for a low or the full resolution",
            run="zoo_sparse_refine.training.dense:run",
            config_class="zoo_sparse_refine.training.config:DenseTrainConfig",
        ),
        RecipeSpec(
            name="sparse-refine/refiner",
            summary="the paper's training: dense model frozen, refiner and ensembler by cross entropy, coarse scores on the fly",
            run="zoo_sparse_refine.training.refiner:run",
            config_class="zoo_sparse_refine.training.config:RefinerTrainConfig",
            produces="sparse-refine-streets",
        ),
    ]


@hookimpl
def zoo_claims() -> list[ClaimSpec]:
    source = "arXiv 2407.19014, abstract"
    speed = [
        ClaimSpec(
            name=f"sparse-refine-speedup-{name}",
            summary=f"refined {name} against the same network at full resolution, time per picture",
            paper_value=value,
            unit="x",
            setting="Cityscapes, 1024 x 2048; the paper gives 1.5x to 3.7x over five models, not one value each: this entry holds the end named in 'hardware'",
            source=source,
            hardware=which,
            measure=f"zoo_sparse_refine.claims:{name.replace('-', '_')}",
            scaled="random weights, 11.8 % of the pixels selected (guess from a default in the reference's code), one picture",
        )
        for name, value, which in (
            ("hrnet-w48", 1.5, "GPU not named in the abstract; lower end of the range"),
            ("segformer-b5", 3.7, "GPU not named in the abstract; upper end of the range"),
            ("segnext-l", 1.5, "GPU not named in the abstract; lower end of the range"),
            ("mask2former-t", 1.5, "GPU not named in the abstract; lower end of the range"),
            ("mask2former-l", 1.5, "GPU not named in the abstract; lower end of the range"),
        )
    ]
    accuracy = ClaimSpec(
        name="sparse-refine-cityscapes-accuracy",
        summary="negligible to no loss of accuracy against the dense model at full resolution",
        paper_value=0.0,
        unit="mIoU points",
        setting="Cityscapes val; per-model tables could not be read",
        source=source,
        needs=("weights:refiner (never published)", "data:Cityscapes"),
    )
    return [*speed, accuracy]


@hookimpl
def zoo_benchmarks() -> list[BenchmarkSpec]:
    return [
        BenchmarkSpec(
            name="sparse-refine-vs-dense",
            summary="refine step against dense convolutions of the same picture, and refined against dense full resolution",
            run="zoo_sparse_refine.benchmark:run",
            against="torch conv2d, dense baseline at full resolution",
        )
    ]


@hookimpl
def zoo_conformance() -> list[ConformanceSpec]:
    return [ConformanceSpec(name="sparse-refine", summary="tiny SegFormer and refiner", tiny={"sparse-refine-hrnet-w48": {"overrides": dict(TINY)}})]
