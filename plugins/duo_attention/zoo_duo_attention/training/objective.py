"""The identification objective (DuoAttention, section 2.1): one gate per kv-head between streaming and full attention, learnt by distillation.

The teacher is the untouched model.  In the student every head's output is ``(1 - a) * stream(q_s, k_s, v_s) + a * full(q_t, k_t, v_t)``: the full
branch is the *teacher's* own head
output, a constant; gradients reach a gate through the difference of the two branches and, via the residual stream, through later layers' streaming branches.

The model is not patched: both passes run through an attention function registered with transformers, so any family with ordinary kv-heads works.
The teacher pass runs without
gradients and leaves its head outputs; the student pass picks them up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from zoo_llm.caches.plan import kv_heads, layer_count

from zoo_core.errors import InputError

NAME = "zoo_duo_identify"


class HeadGates(nn.Module):
    """Gate values ``alphas`` [layers, kv heads] float32, initially 1."""

    def __init__(self, layers: int, heads: int, initial: float = 1.0) -> None:
        super().__init__()
        self.alphas = nn.Parameter(torch.full((layers, heads), initial, dtype=torch.float32))

    @classmethod
    def for_model(cls, model: Any, initial: float = 1.0) -> HeadGates:
        """Gates for a transformers model."""
        return cls(layer_count(model.config), kv_heads(model.config), initial)

    @torch.no_grad()
    def start_from(self, alphas: Any) -> None:
        """Begin with a pattern's values [layers, kv heads] (an array).

        Raises:
            InputError: Another model's pattern.
        """
        if tuple(alphas.shape) != tuple(self.alphas.shape):
            raise InputError(f"the initial pattern has {tuple(alphas.shape)} gates, the model {tuple(self.alphas.shape)}", fix="a pattern of this model")
        self.alphas.copy_(torch.as_tensor(alphas))

    @torch.no_grad()
    def clamp_(self) -> None:
        """Clamp to [0, 1] in place (done before every forward pass, not after the last step)."""
        self.alphas.clamp_(0, 1)


def streaming_mask(length: int, sink: int, recent: int, device: Any = None) -> torch.Tensor:
    """Bool [length, length]: key k visible to query q iff k <= q and (k < sink or q - k < recent).

    One token narrower than the decode-time cache: here the query counts as one of the ``recent`` tokens.
    """
    columns = torch.arange(length, device=device)
    q, k = columns[:, None], columns[None, :]
    return (k <= q) & ((k < sink) | (q - k < recent))


def streaming_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, sink: int, recent: int, scale: float | None = None) -> torch.Tensor:
    """Attention under :func:`streaming_mask` in time and memory linear in the tokens, with gradients.

    Queries go in blocks of at least ``recent`` tokens; a block sees the sinks, the block before it and itself.  Up to ``sink + 2 * block`` tokens one masked
    call is cheaper and is taken.

    Args:
        query: [batch, heads, tokens, dim].
        key, value: [batch, kv heads, tokens, dim].

    Returns:
        [batch, heads, tokens, dim].
    """
    batch, _, length, _ = query.shape
    block = max(64, recent)
    if length <= sink + 2 * block:
        mask = streaming_mask(length, sink, recent, query.device)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=True)
    count = -(-length // block)

    def blocks(states: torch.Tensor) -> torch.Tensor:  # [batch, count, heads, block, dim]
        return F.pad(states, (0, 0, 0, count * block - length)).unflatten(2, (count, block)).transpose(1, 2)

    def window(states: torch.Tensor) -> torch.Tensor:  # [batch * count, heads, sink + 2 * block, dim]
        here = blocks(states)
        before = torch.cat((torch.zeros_like(here[:, :1]), here[:, :-1]), dim=1)
        sinks = states[:, None, :, :sink].expand(-1, count, -1, -1, -1)
        return torch.cat((sinks, before, here), dim=3).flatten(0, 1)

    device = query.device
    q = torch.arange(count * block, device=device).view(count, block, 1)
    near = (torch.arange(count, device=device)[:, None] - 1) * block + torch.arange(2 * block, device=device)
    near = near[:, None]
    sinks = torch.arange(sink, device=device).expand(count, 1, sink)
    seen = torch.cat((sinks <= q, (near >= sink) & (near <= q) & (q - near < recent)), dim=2)[:, None]
    output = F.scaled_dot_product_attention(
        blocks(query).flatten(0, 1), window(key), window(value), attn_mask=seen.repeat(batch, 1, 1, 1), scale=scale, enable_gqa=True
    )
    return output.unflatten(0, (batch, count)).transpose(1, 2).flatten(2, 3)[:, :, :length]


class _Pass:
    """What the attention function needs during one teacher or student pass."""

    def __init__(self, gates: HeadGates | None, sizes: tuple[int, int], outputs: dict[int, torch.Tensor]) -> None:
        self.gates, self.sizes, self.outputs = gates, sizes, outputs


_current: list[_Pass] = []


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    run = _current[-1]
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    if run.gates is None:
        output = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)
        run.outputs[layer] = output
    else:
        stream = streaming_attention(query, key, value, sink=run.sizes[0], recent=run.sizes[1], scale=scaling)
        gate = run.gates.alphas[layer].repeat_interleave(query.shape[1] // key.shape[1]).view(1, -1, 1, 1).to(stream.dtype)
        output = (1 - gate) * stream + gate * run.outputs.pop(layer)
    return output.transpose(1, 2), None


def _no_mask(**_: Any) -> None:
    return None


@contextlib.contextmanager
def identification(model: Any) -> Iterator[None]:
    """Switch a transformers model to the identification attention, and back."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _no_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def two_way(model: Any, gates: HeadGates, input_ids: torch.Tensor, *, sink: int, recent: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states after the final norm, [batch, tokens, width]: (teacher, student).  Call inside :func:`identification`."""
    if model.config._attn_implementation != NAME:
        raise InputError("two_way was called outside identification(model)", fix="with identification(model): ...")
    outputs: dict[int, torch.Tensor] = {}
    decoder = model.base_model

    def run(gates: HeadGates | None) -> torch.Tensor:
        _current.append(_Pass(gates, (sink, recent), outputs))
        try:
            return decoder(input_ids=input_ids, use_cache=False).last_hidden_state
        finally:
            _current.pop()

    with torch.no_grad():
        teacher = run(None)
    return teacher, run(gates)


def losses(teacher: torch.Tensor, student: torch.Tensor, labels: torch.Tensor, gates: HeadGates, reg_weight: float) -> dict[str, torch.Tensor]:
    """``distill`` (mean over labelled tokens of the mean squared difference), ``reg`` (mean |alpha|) and ``loss = distill + reg_weight * reg``, all fp32."""
    labelled = labels != -100
    difference = (teacher.float() - student.float()).square().mean(-1)
    distill = difference[labelled].sum() / labelled.sum()
    reg = gates.alphas.abs().mean()
    return {"loss": distill + reg_weight * reg, "distill": distill, "reg": reg}


def lr_factor(step: int, steps: int) -> float:
    """Published schedule: up over a fifth of the run (from 0.1), flat, down over the last fifth (to 0.1).

    >>> [round(lr_factor(s, 2000), 3) for s in (0, 39, 399, 1000, 1999)]
    [0.1, 0.1, 1.0, 1.0, 0.1]
    """
    ramp = max(1, steps // 5)
    return min(1.0, max((step + 1) / ramp, 0.1), max((steps - step) / ramp, 0.1))
