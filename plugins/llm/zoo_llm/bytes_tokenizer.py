"""A byte-level tokenizer for randomly initialised models: 256 bytes and a few marks."""

from __future__ import annotations

from typing import Any


def byte_tokenizer() -> Any:
    """A fast transformers tokenizer whose ids 0-255 are bytes; 256 = ``<s>``, 257 = ``</s>``, 258 = ``<pad>``.

    >>> byte_tokenizer()("hi")["input_ids"]
    [104, 105]
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {}, 0
    for byte in range(256):  # the byte-to-character table of byte-level BPE
        if byte in printable:
            table[chr(byte)] = byte
        else:
            table[chr(256 + extra)] = byte
            extra += 1
    marks = {"<s>": 256, "</s>": 257, "<pad>": 258, "<unk>": 259}
    tokenizer = Tokenizer(models.BPE(vocab={**table, **marks}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
