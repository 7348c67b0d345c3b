"""A small text side for training from scratch: a Gemma-style tokenizer learned from the captions and a Gemma-2 encoder of any size.

Both are saved in the folders that the published pipelines use (``tokenizer/``, ``text_encoder/``), so nothing special is needed to load them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>")


def train_tokenizer(captions: Iterable[str], vocabulary: int = 3072) -> Any:
    """Byte-fallback BPE with ``▁`` for spaces and a leading ``<bos>``, as Gemma's; a ``PreTrainedTokenizerFast``."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    byte_tokens = [f"<0x{value:02X}>" for value in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[*SPECIAL, *byte_tokens], show_progress=False, min_frequency=2)
    core.train_from_iterator(captions, trainer)
    core.post_processor = processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>", padding_side="right", model_max_length=8192
    )


def make_encoder(vocabulary: int, width: int, layers: int, heads: int) -> Any:
    """Decoder part of a Gemma-2 of the given size with soft-capped eager attention (``transformers.Gemma2Model``)."""
    from transformers import Gemma2Config, Gemma2Model

    config = Gemma2Config(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(heads // 2, 1),
        head_dim=width // heads,
        query_pre_attn_scalar=width // heads,
        max_position_embeddings=512,
        sliding_window=512,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
        attn_implementation="eager",
        use_cache=False,
    )
    return Gemma2Model(config)


def save_text_side(tokenizer: Any, encoder: Any, folder: str | Path) -> None:
    """``tokenizer/`` and ``text_encoder/`` below ``folder`` (safetensors, in the encoder's dtype)."""
    folder = Path(folder)
    tokenizer.save_pretrained(folder / "tokenizer")
    encoder.save_pretrained(folder / "text_encoder", safe_serialization=True)
