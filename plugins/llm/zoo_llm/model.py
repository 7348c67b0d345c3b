"""The ``LanguageModel`` handle: task protocol ``CausalLM`` over a transformers decoder and a composed cache."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo_core.errors import InputError
from zoo_core.interfaces import Model, TextResult

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.cache_utils import Cache

    from zoo_llm.caches.plan import CachePlan

Prompt = str | Sequence[str] | Sequence[Mapping[str, str]]


class LanguageModel(Model):
    """A decoder with its tokenizer and cache plan.

    Example:
        >>> import zoo
        >>> lm = zoo.load("smollm2-135m-instruct", cache="full-int8")           # doctest: +SKIP
        >>> lm.generate([{"role": "user", "content": "Name three colours."}]).texts[0]     # doctest: +SKIP
    """

    plan: CachePlan
    kernel_choices: Mapping[str, str] = {}
    """What ``kernels=`` forced at load."""
    prefill_chunk: int = 4096
    """Prompts are fed in pieces of this many tokens; with a streaming cache that bounds activation memory and keeps prefill linear."""

    @property
    def module(self) -> PreTrainedModel:  # type: ignore[override]
        return self.components["model"]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer = self.components.get("tokenizer")
        if tokenizer is None:
            raise InputError(f"model {self.name!r} was loaded without a tokenizer", fix="load it from a folder that has tokenizer.json")
        return tokenizer

    def set_cache(self, plan: CachePlan) -> LanguageModel:
        """Use another cache plan from now on (switches the attention implementation when the plan asks for one)."""
        self.plan = plan
        wanted = plan.attention or self._own_attention()
        if self.module.config._attn_implementation != wanted:
            self.module.set_attn_implementation(wanted)
        self.report.kernels.clear()
        self.report.kernels.update(attention=wanted, **plan.kernels)
        return self

    def _own_attention(self) -> str:
        current = self.module.config._attn_implementation
        return "sdpa" if current == "zoo_policy" else current

    def new_cache(self, reserve: int = 0) -> Cache:
        """A fresh cache for one run; pass it to ``module.generate(past_key_values=...)`` when you use transformers directly."""
        return self.plan.make(reserve=reserve)

    # -- text in and out -----------------------------------------------------------------------------------------------------

    def encode(self, prompt: Prompt) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask [batch, tokens], left-padded.  A chat (list of role/content mappings) goes through the chat template."""
        import torch

        texts: list[str]
        special = True
        if isinstance(prompt, str):
            texts = [prompt]
        elif prompt and isinstance(prompt[0], Mapping):
            texts = [self.tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True)]  # type: ignore[list-item]
            special = False
        else:
            texts = list(prompt)  # type: ignore[arg-type]
        if not texts or any(not text for text in texts):
            raise InputError(f"model {self.name!r}: the prompt is empty", fix="give at least one character of text")
        rows = [self.tokenizer(text, add_special_tokens=special)["input_ids"] for text in texts]
        length = max(map(len, rows))
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        ids = torch.full((len(rows), length), pad, dtype=torch.long)
        mask = torch.zeros((len(rows), length), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, length - len(row) :] = torch.tensor(row)
            mask[i, length - len(row) :] = 1
        return ids.to(self.device), mask.to(self.device)

    def prefill(self, ids: torch.Tensor, mask: torch.Tensor, cache: Cache, *, chunk: int | None = None) -> torch.Tensor:
        """Feed ``ids`` [batch, tokens] in chunks; returns the logits [batch, vocabulary] of the last position."""
        import torch

        positions = (mask.cumsum(-1) - 1).clamp_min(0)
        done = cache.get_seq_length()
        size = chunk or self.prefill_chunk
        logits = None
        padded = not bool(mask.all())
        with torch.inference_mode():
            for begin in range(done, ids.shape[1], size):
                end = min(begin + size, ids.shape[1])
                output = self.module(
                    input_ids=ids[:, begin:end],
                    attention_mask=mask[:, :end] if padded else None,
                    position_ids=positions[:, begin:end],
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
                logits = output.logits[:, -1]
        if logits is None:
            raise InputError("prefill: the cache already holds the whole prompt", fix="use a fresh cache (new_cache())")
        return logits

    def generate(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        seed: int | None = None,
        progress: bool = False,
        streamer: Any = None,
        **options: Any,
    ) -> TextResult:
        """Continue one or many prompts, or answer a chat.

        Args:
            prompt: Text, several texts, or a chat as ``[{"role": "user", "content": ...}]``.
            temperature: 0 is greedy.
            seed: Seed of the sampling (only used when ``temperature > 0``).
            options: Passed to transformers' ``generate`` (``num_beams``, ``repetition_penalty``, ``assistant_model``...).

        Returns:
            ``texts`` without the prompt; ``seconds`` for ``prefill`` and ``decode``; ``info`` with token counts and cache bytes.
        """
        import torch

        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {max_new_tokens}", fix="max_new_tokens=128")
        if temperature < 0 or not 0 < top_p <= 1:
            raise InputError(f"temperature is {temperature}, top_p is {top_p}", fix="temperature >= 0 (0 is greedy) and 0 < top_p <= 1")
        ids, mask = self.encode(prompt)
        self._check_length(ids.shape[1] + max_new_tokens)
        cache = self.new_cache(reserve=ids.shape[1] + max_new_tokens)
        if options.get("assistant_model") is not None and hasattr(cache, "activate_past_recording"):
            cache.activate_past_recording()
        begin = time.perf_counter()
        if ids.shape[1] > 1:
            self.prefill(ids[:, :-1], mask[:, :-1], cache)
            copies = max(options.get("num_beams", 1), options.get("num_return_sequences", 1))
            if copies > 1:
                cache.batch_repeat_interleave(copies)
        middle = time.perf_counter()
        if temperature > 0:
            options.update(do_sample=True, temperature=temperature, top_p=top_p)
        else:
            options.setdefault("do_sample", False)
            if not options["do_sample"]:
                options.update(temperature=None, top_p=None, top_k=None)
        if stop:
            options.update(stop_strings=list(stop), tokenizer=self.tokenizer)
        if self.module.generation_config.pad_token_id is None:
            options.setdefault("pad_token_id", self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0)
        with torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            with torch.inference_mode():
                output = self.module.generate(
                    ids, attention_mask=mask, past_key_values=cache, max_new_tokens=max_new_tokens, use_cache=True, streamer=streamer, **options
                )
        end = time.perf_counter()
        new = output[:, ids.shape[1] :].tolist()
        texts = [self.tokenizer.decode(row, skip_special_tokens=True) for row in new]
        for mark in stop:
            texts = [text.split(mark)[0] for text in texts]
        info: dict[str, Any] = {"prompt_tokens": int(mask.sum()), "new_tokens": sum(map(len, new)), "cache": self.plan.name}
        if hasattr(cache, "memory"):
            report = cache.memory()
            info.update(cache_bytes=report.used, cache_allocated=report.allocated)
        return TextResult(texts, new, seconds={"prefill": middle - begin, "decode": end - middle}, info=info)

    def _check_length(self, tokens: int) -> None:
        limit = getattr(self.module.config.get_text_config(decoder=True), "max_position_embeddings", None)
        if limit and tokens > limit:
            raise InputError(
                f"model {self.name!r}: {tokens} tokens (prompt + new) exceed its trained length {limit}", fix="shorten the prompt, or load with rope='yarn:2'"
            )

    def stream(self, prompt: str | Sequence[Mapping[str, str]], **options: Any) -> Iterator[str]:
        """Pieces of the answer as they are made (same options as :meth:`generate`; one prompt)."""
        from threading import Thread

        from transformers import TextIteratorStreamer

        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        failure: list[BaseException] = []

        def run() -> None:
            try:
                self.generate(prompt, streamer=streamer, **options)
            except BaseException as error:  # handed to the reader below
                failure.append(error)
                streamer.on_finalized_text("", stream_end=True)

        thread = Thread(target=run, daemon=True)
        thread.start()
        for piece in streamer:
            if piece:
                yield piece
        thread.join()
        if failure:
            raise failure[0]

    def loglikelihood(self, texts: Sequence[str], *, context: Sequence[str] | None = None, chunk: int | None = None) -> list[tuple[float, int]]:
        """Sum of log-probabilities in nats and number of scored tokens per text, through the composed cache.

        Without ``context`` the first token of a text is not scored.
        """
        import torch

        if context is not None and len(context) != len(texts):
            raise InputError(f"loglikelihood: {len(texts)} texts but {len(context)} contexts", fix="give one context per text")
        results = []
        for i, text in enumerate(texts):
            before = self.tokenizer(context[i])["input_ids"] if context is not None else []
            row = self.tokenizer(text, add_special_tokens=not before)["input_ids"]
            ids = torch.tensor([[*before, *row]], device=self.device)
            results.append(self.score(ids, start=max(1, len(before)), chunk=chunk))
        return results

    def score(self, ids: torch.Tensor, *, start: int = 1, chunk: int | None = None) -> tuple[float, int]:
        """Log-probability (nats) of ``ids[0, start:]`` given what stands before, and how many tokens that is; chunked through the cache."""
        import torch

        cache = self.new_cache(reserve=ids.shape[1])
        size = chunk or self.prefill_chunk
        total = torch.zeros((), dtype=torch.float64)
        with torch.inference_mode():
            for begin in range(0, ids.shape[1] - 1, size):
                end = min(begin + size, ids.shape[1] - 1)
                logits = self.module(input_ids=ids[:, begin:end], past_key_values=cache, use_cache=True).logits[0].float()
                first = max(begin, start - 1)
                if first < end:
                    targets = ids[0, first + 1 : end + 1]
                    picked = torch.log_softmax(logits[first - begin :], dim=-1).gather(-1, targets[:, None])
                    total += picked.double().sum().cpu()
        return float(total), max(0, ids.shape[1] - start)
