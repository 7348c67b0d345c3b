"""Attention over a :class:`~zoo_llm.caches.layer.PolicyLayer`, registered with transformers' attention and mask registries.

The mask function keeps the two-dimensional padding mask (the policies need columns, not a dense [query, key] matrix); the attention function runs one
scaled-dot-product call per group of kv-heads, or the kernels that :mod:`zoo_llm.caches.kernels` bound.  Cost per call of n new tokens on a history of L:
full heads O(n L), streaming heads O(n (sink + recent)) - linear also in the prefill.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from zoo_core.errors import InputError
from zoo_llm.caches.kernels import NONE, CacheKernels
from zoo_llm.caches.layer import HeadGroup, LayerView, PolicyLayer
from zoo_llm.caches.stores import SinkRingStore

NAME = "zoo_policy"
"""Name in ``AttentionInterface`` and ``AttentionMaskInterface``."""


def register() -> str:
    """Register the attention and mask functions with transformers (idempotent); returns :data:`NAME`."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, policy_attention)
    AttentionMaskInterface.register(NAME, padding_mask)
    return NAME


def padding_mask(
    batch_size: int, q_length: int, kv_length: int, q_offset: Any = 0, kv_offset: int = 0, attention_mask: torch.Tensor | None = None, **_: Any
) -> torch.Tensor | None:
    """Boolean [batch, kv_length] with False at padding, or None when nothing is padded (one host check per call, not per layer)."""
    if attention_mask is None or bool(attention_mask.all()):
        return None
    return attention_mask[:, :kv_length].to(torch.bool)


def policy_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: LayerView | torch.Tensor,
    value: Any,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention function of transformers' interface.

    Args:
        query: [batch, heads, new, dim].
        key: The view made by ``PolicyLayer.update`` (or plain keys when the model runs without a cache: then ordinary causal attention).
        attention_mask: What :func:`padding_mask` returned.

    Returns:
        [batch, new, heads, dim] and None.
    """
    if kwargs.get("softcap") is not None:
        raise InputError("policy cache: models with attention soft-capping are not supported", fix="use this model with its own cache (cache=None)")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    first = first_columns(attention_mask)
    if isinstance(key, torch.Tensor):
        mask = None
        if first is not None:
            columns = torch.arange(key.shape[-2], device=key.device)
            mask = (columns[None, :] <= columns[:, None])[None] & (columns[None, None] >= first[:, None, None])
        return attend(query, key, value, mask, causal=mask is None, scale=scale).transpose(1, 2), None
    view, layer = key, key.layer
    grouped = query.unflatten(1, (len(layer.policies), -1))  # [batch, kv heads, queries per kv head, new, dim]
    if view.commit:
        layer.begin(view.new, first)
    if view.commit and query.shape[2] == 1 and one_launch(layer, query):
        output = decode_heads(layer, grouped, view.new, first, scale)
        layer.end(view.new)
        return output.flatten(1, 2).transpose(1, 2), None
    output = None
    for group in layer.groups:
        part = attend_group(group, view, layer.select(group, (grouped,))[0], layer.select(group, view.new), first, scale)
        if len(layer.groups) == 1:
            output = part
        else:
            output = torch.empty_like(grouped) if output is None else output
            output[:, list(group.heads)] = part
    if view.commit:
        layer.end(view.new)
    assert output is not None
    return output.flatten(1, 2).transpose(1, 2), None


def differentiable(*tensors: torch.Tensor) -> bool:
    """Whether gradients are recorded (kernels have none, so the ordinary path is taken)."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def one_launch(layer: PolicyLayer, query: torch.Tensor) -> bool:
    """Whether one new token of all heads of this layer can go through the bound ``head_policy_decode``."""
    bound = layer.kernels.head_policy_decode is not None and layer.slots is not None and layer.storage.name == "native"
    return bound and query.dtype == layer.dtype and not differentiable(query)


def decode_heads(layer: PolicyLayer, query: torch.Tensor, new: Sequence[torch.Tensor], first: torch.Tensor | None, scale: float) -> torch.Tensor:
    """One new token of full and streaming heads in one launch: query [batch, kv heads, queries per head, 1, dim] -> the same shape; keeps the token."""
    dtype = query.dtype
    empty = query.new_empty((query.shape[0], 0, 1, query.shape[-1]))
    full, ring, valid = (empty, empty), (empty, empty), None
    for group in layer.groups:
        group.append(layer.select(group, new), first)
        values = group.store.values(0, dtype), group.store.values(1, dtype)
        if isinstance(group.store, SinkRingStore):
            ring = values
            if first is not None or not group.store.whole:
                valid = group.store.columns(first, query.device) >= 0
        else:
            full = values
    assert layer.kernels.head_policy_decode is not None
    return layer.kernels.head_policy_decode(query.squeeze(3), *full, *ring, layer.slots, valid, first, scale).unsqueeze(3)


def first_columns(mask: torch.Tensor | None) -> torch.Tensor | None:
    """First real column per row [batch] of a left-padded mask; None without padding.

    Raises:
        InputError: A row is padded on the right or in the middle.
    """
    if mask is None:
        return None
    real = mask.sum(-1)
    first = torch.where(real > 0, mask.int().argmax(-1), mask.shape[-1])  # a row may be all padding so far
    if not torch.equal(real + first, torch.full_like(first, mask.shape[-1])):
        raise InputError("policy cache: the attention mask has padding on the right or inside a row", fix="pad on the left (tokenizer.padding_side = 'left')")
    return first


def attend_group(group: HeadGroup, view: LayerView, query: torch.Tensor, new: Sequence[torch.Tensor], first: torch.Tensor | None, scale: float) -> torch.Tensor:
    """Attention of one group: query [batch, kv heads, queries per head, new, dim] -> the same shape; keeps the new tokens when the view commits."""
    if query.shape[3] == 1 and view.commit:
        return decode(group, query, new, first, scale, view.layer.kernels)
    if group.streaming and not (view.layer.prefill == "legacy" and view.start == 0):
        output = streaming(group, view, query, new, first, scale)
        if view.commit:
            group.append(new, first)
        return output
    store, dtype = group.store, new[0].dtype
    append_first = view.commit and not group.streaming and view.layer.storage.name == "native"
    if append_first:
        group.append(new, first)
        keys, values = store.values(0, dtype), store.values(1, dtype)
    elif view.start == 0:
        keys, values = new
    else:
        keys, values = (torch.cat((store.values(i, dtype), new[i]), dim=-2) for i in range(2))
    if view.commit and not append_first:
        group.append(new, first)
    mask = None
    if first is not None or view.start:
        columns = torch.arange(keys.shape[-2], device=keys.device)
        mask = (columns[None, :] <= columns[view.start :, None])[None]
        if first is not None:
            mask = mask & (columns[None, None] >= first[:, None, None])
    return attend(query.flatten(1, 2), keys, values, mask, causal=mask is None, scale=scale).unflatten(1, query.shape[1:3])


def decode(
    group: HeadGroup, query: torch.Tensor, new: Sequence[torch.Tensor], first: torch.Tensor | None, scale: float, kernels: CacheKernels = NONE
) -> torch.Tensor:
    """One new token: keep it, then read the store in place (no copy, and no mask unless rows are padded or the ring is not yet full)."""
    group.append(new, first)
    store, dtype = group.store, query.dtype
    packed = kernels.int4_kv_decode is not None and store.storage.name == "int4" and not differentiable(query)
    if packed and not (first is not None and isinstance(store, SinkRingStore)):  # a padded row's ring has holes, which the op cannot name
        assert kernels.int4_kv_decode is not None
        return kernels.int4_kv_decode(query.squeeze(3), *store.parts(0), *store.parts(1), first, scale).unsqueeze(3)
    mask = None
    if isinstance(store, SinkRingStore):
        if first is not None or not store.whole:
            mask = (store.columns(first, query.device) >= 0)[:, None]
    elif first is not None:
        mask = (torch.arange(store.length, device=query.device)[None] >= first[:, None])[:, None]
    folded = query.squeeze(3)  # queries of one kv head become the rows of one product: keys are read once
    return attend(folded, store.values(0, dtype), store.values(1, dtype), mask, causal=False, scale=scale).unsqueeze(3)


def streaming(group: HeadGroup, view: LayerView, query: torch.Tensor, new: Sequence[torch.Tensor], first: torch.Tensor | None, scale: float) -> torch.Tensor:
    """Several new tokens for streaming heads: blocks of queries see sinks, their recent window and themselves; linear in the number of new tokens.

    A query at column q may see column k iff k <= q and (k is a sink of its row, or k >= q - recent); with the legacy rule the window begins at
    ``recent`` before
    the call instead and reaches over the whole call.
    """
    store = group.store
    assert isinstance(store, SinkRingStore)
    length, start, device, dtype = query.shape[3], view.start, query.device, new[0].dtype
    sink, recent = group.policy.sink, group.policy.recent
    legacy = view.layer.prefill == "legacy"
    kernel = view.layer.kernels.streaming_prefill
    if kernel is not None and first is None and not legacy and not differentiable(query, *new):
        past = (store.values(0, dtype), store.values(1, dtype), store.columns(None, device)[0]) if start else (None, None, None)
        return kernel(query.flatten(1, 2), *new, sink, recent, *past, start, scale).unflatten(1, query.shape[1:3])
    base = torch.zeros(1, dtype=torch.long, device=device) if first is None else first
    rows = torch.arange(start, start + length, device=device)
    old_columns = store.columns(first, device) if start else rows.new_empty(1, 0)
    old = [store.values(i, dtype) for i in range(2)] if start else [t[..., :0, :] for t in new]
    sinks_here = 0 if start >= sink and first is None else max(0, min(length, int(base.max()) + sink - start))  # sink columns inside this call
    block = length if legacy else max(128, recent)
    outputs = []
    for begin in range(0, length, block):
        end = min(begin + block, length)
        low = 0 if legacy else max(0, begin - recent)
        spans = [(0, min(sinks_here, low)), (low, end)]
        keys, values = (torch.cat([o] + [n[..., a:b, :] for a, b in spans if a < b], dim=-2) for o, n in zip(old, new, strict=True))
        fresh = torch.cat([rows[a:b] for a, b in spans])
        columns = torch.cat((old_columns, fresh.expand(old_columns.shape[0], -1)), dim=1)[:, None]
        query_columns = rows[begin:end, None]
        window = columns >= ((start if legacy else query_columns) - recent)
        seen = (columns <= query_columns) & (columns >= base[:, None, None]) & (window | (columns < (base + sink)[:, None, None]))
        outputs.append(attend(query[:, :, :, begin:end].flatten(1, 2), keys, values, seen, causal=False, scale=scale))
    return torch.cat(outputs, dim=2).unflatten(1, query.shape[1:3])


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, *, causal: bool, scale: float) -> torch.Tensor:
    """Scaled-dot-product attention with grouped queries; ``mask`` [1 or batch, queries, keys] bool.  A query that may see nothing (padding) gives 0."""
    if mask is not None:
        mask = mask[:, None]
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal and query.shape[-2] > 1, scale=scale, enable_gqa=True)
    return output.nan_to_num() if mask is not None and mask.shape[0] > 1 else output
