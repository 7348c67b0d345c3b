"""Text side: the complex human instruction, tokenising, Gemma-2 features and their cache (fact sheet section 4)."""

from __future__ import annotations

import functools
import json
from collections import OrderedDict
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor, nn

from zoo_core.errors import InputError


@functools.lru_cache(maxsize=1)
def default_instruction() -> str:
    """The published instruction: fixed lines joined by newlines; the prompt is glued directly behind the last one."""
    data = json.loads(files("zoo_sana").joinpath("tables/instruction.json").read_text(encoding="utf-8"))
    return "\n".join(data["lines"])


class TextEncoder(nn.Module):
    """A Gemma-2 decoder (eager attention, so that logit soft-capping stays) with its tokenizer.

    Args:
        model: ``transformers`` Gemma-2 model without head.
        tokenizer: Its tokenizer (right padding).
        tokens: Caption length that the transformer was trained with.
        cache_size: How many encoded prompts to keep.
    """

    def __init__(self, model: Any, tokenizer: Any, tokens: int = 300, cache_size: int = 64) -> None:
        super().__init__()
        self.model, self.tokenizer, self.tokens = model, tokenizer, tokens
        tokenizer.padding_side = "right"
        self._cache: OrderedDict[tuple[Any, ...], tuple[Tensor, Tensor]] = OrderedDict()
        self._cache_size = cache_size

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def tokenise(self, prompts: Sequence[str], instruction: str = "") -> tuple[Tensor, Tensor]:
        """Ids and mask [B, L]: instruction + prompt, padded to (instruction tokens + tokens - 2), or to ``tokens`` without instruction."""
        length = self.tokens
        if instruction:
            length += len(self.tokenizer(instruction)["input_ids"]) - 2
        batch = self.tokenizer([instruction + prompt for prompt in prompts], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return batch["input_ids"], batch["attention_mask"]

    @torch.no_grad()
    def features(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states after the final norm [B, L, width].

        Padding stands right of causal attention, so it cannot change earlier positions; padded positions are still computed because the
        shared-mask rule lets the transformer see them.
        """
        device = self.device
        return self.model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).last_hidden_state

    def encode(self, prompts: Sequence[str], instruction: str = "") -> tuple[Tensor, Tensor]:
        """Features [B, tokens, width] and mask [B, tokens] as the transformer wants them; known prompts come from the cache.

        With an instruction, position 0 and the last ``tokens - 1`` positions are kept: the instruction's own tokens are cut away but have shaped the rest.
        """
        keys = [(prompt, instruction, self.tokens, str(self.model.dtype)) for prompt in prompts]
        missing = [key for key in dict.fromkeys(keys) if key not in self._cache]
        if missing:
            ids, mask = self.tokenise([key[0] for key in missing], instruction)
            hidden = self.features(ids, mask).to("cpu", copy=False) if self.device.type != "cpu" else self.features(ids, mask)
            if instruction:
                select = [0, *range(-self.tokens + 1, 0)]
                hidden, mask = hidden[:, select], mask[:, select]
            for row, key in enumerate(missing):
                self._cache[key] = (hidden[row], mask[row])
        result = [self._cache[key] for key in keys]
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return torch.stack([features for features, _ in result]), torch.stack([mask for _, mask in result])

    def clear(self) -> None:
        """Forget encoded prompts."""
        self._cache.clear()


def load_text_encoder(folder: Any, tokenizer_folder: Any, *, dtype: torch.dtype, device: Any, tokens: int) -> TextEncoder:
    """From published ``text_encoder`` and ``tokenizer`` folders."""
    from transformers import AutoTokenizer, Gemma2Model

    from zoo_core.loading import quiet_bars

    with quiet_bars():
        model = Gemma2Model.from_pretrained(folder, dtype=dtype, attn_implementation="eager", local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, local_files_only=True, trust_remote_code=False)
    return TextEncoder(model.eval().requires_grad_(False).to(device), tokenizer, tokens)


def random_text_encoder(values: dict[str, Any], width: int, *, seed: int, dtype: torch.dtype, device: Any, tokens: int) -> TextEncoder:
    """A seeded Gemma-2 of the given shape with a byte-level tokenizer (benchmarks and tests)."""
    from transformers import Gemma2Config, Gemma2Model

    settings = {"hidden_size": width, "vocab_size": 264, "pad_token_id": 256, "bos_token_id": 257, "eos_token_id": 258, **values}
    config = Gemma2Config(**settings)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Gemma2Model._from_config(config, dtype=dtype, attn_implementation="eager")
    return TextEncoder(model.eval().requires_grad_(False).to(device), byte_tokenizer(), tokens)


def byte_tokenizer() -> Any:
    """Ids 0-255 are bytes; 256 padding, 257 bos (put in front), 258 eos."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {char: i for i, char in enumerate(alphabet)} | {"<pad>": 256, "<bos>": 257, "<eos>": 258, "<unk>": 259}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 257)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>")


def check_prompts(prompt: Any) -> list[str]:
    """One text or several -> list.

    Raises:
        InputError: Nothing given, or something that is not text.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts or any(not isinstance(text, str) for text in prompts):
        raise InputError(f"prompt must be a text or a list of texts, got {type(prompt).__name__}", fix='model.generate("a cat")')
    if any(not text.strip() for text in prompts):
        raise InputError("the prompt is empty", fix='describe the picture: model.generate("a cat")')
    return prompts
