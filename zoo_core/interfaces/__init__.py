"""Contracts between core and plugins, one file per kind."""

from __future__ import annotations

from zoo_core.interfaces.cache import KVCache, LayerState, MemoryReport, StorageFormat, TokenPolicy
from zoo_core.interfaces.evaluator import Evaluator, Sample
from zoo_core.interfaces.model import (
    CausalLM,
    ClassToImage,
    ImageAutoencoder,
    ImageResult,
    Model,
    MotionPredictor,
    MotionResult,
    ProgressCallback,
    SegmentationResult,
    SemanticSegmenter,
    TextResult,
    TextToImage,
    VisionLanguage,
)
from zoo_core.interfaces.parts import KernelBound, Tokenizer, VisualTokenizer
from zoo_core.interfaces.sampler import Sampler, SamplingPlan
from zoo_core.interfaces.weights import BuildRequest, FileRecord, LoadReport, ResolvedWeights

__all__ = [
    "BuildRequest", "CausalLM", "ClassToImage", "Evaluator", "FileRecord", "ImageAutoencoder", "ImageResult", "KVCache", "KernelBound", "LayerState",
    "LoadReport", "MemoryReport", "Model", "MotionPredictor", "MotionResult", "ProgressCallback", "ResolvedWeights", "Sample", "Sampler", "SamplingPlan",
    "SegmentationResult", "SemanticSegmenter", "StorageFormat", "TextResult", "TextToImage", "TokenPolicy", "Tokenizer", "VisionLanguage",
    "VisualTokenizer",
]  # fmt: skip
