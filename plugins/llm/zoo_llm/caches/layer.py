"""A cache layer with one token policy per kv-head, usable as a layer of a ``transformers`` cache.

``update`` hands the attention function a :class:`LayerView` instead of two tensors: the decoder layer passes it through untouched, so heads may
differ in length
and no weights are reordered.  The attention function of :mod:`zoo_llm.caches.attention` computes with it and then commits the new tokens (it alone
knows the padding).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from zoo_core.errors import InputError
from zoo_core.interfaces import MemoryReport, TokenPolicy
from zoo_llm.caches.kernels import NONE, KernelBinder
from zoo_llm.caches.storage import Storage, storage_format
from zoo_llm.caches.stores import GrowingStore, SinkRingStore


@dataclass
class HeadGroup:
    """kv-heads of one layer that share a policy, and their store."""

    policy: TokenPolicy
    heads: tuple[int, ...]
    store: GrowingStore | SinkRingStore

    @property
    def streaming(self) -> bool:
        return self.policy.kind != "full"

    def append(self, tensors: Sequence[torch.Tensor], first: torch.Tensor | None) -> None:
        """Keep the group's new tokens [batch, heads of the group, new, dim]."""
        if isinstance(self.store, SinkRingStore):
            self.store.append(tensors, first)
        else:
            self.store.append(tensors)


@dataclass
class LayerView:
    """What attention gets from :meth:`PolicyLayer.update`: the layer, the new tensors and where they begin.

    ``dtype``/``shape``/``device`` answer for the new keys, because model code sometimes looks at them.
    """

    layer: PolicyLayer
    new: tuple[torch.Tensor, ...]
    start: int
    commit: bool = True

    @property
    def dtype(self) -> torch.dtype:
        return self.new[0].dtype

    @property
    def device(self) -> torch.device:
        return self.new[0].device

    @property
    def shape(self) -> torch.Size:
        new = self.new[0].shape
        return torch.Size((*new[:-2], self.start + new[-2], new[-1]))


@dataclass
class _Undo:
    """State before a call and the call's tensors, kept while the past is recorded."""

    states: dict[int, tuple[int, list[list[torch.Tensor]]]]
    length: int
    new: tuple[torch.Tensor, ...]
    first: torch.Tensor | None = field(default=None)


class PolicyLayer(CacheLayerMixin):
    """State of one decoder layer.

    Args:
        policies: One policy per kv-head.
        storage: Storage format of all heads (name or object).
        prefill: ``"streaming"`` - a streaming head sees its sinks and the last ``recent`` tokens (and itself) at every position, however the tokens
        are cut into
            calls; ``"legacy"`` - upstream's rule: the first call is full attention for all heads, later calls see the whole call plus the kept tokens.
        reserve: Tokens to allocate at once for full heads.
        binder: Chooses the attention kernels when the first tokens arrive (None: this layer gets its own).
    """

    is_sliding = False
    is_croppable = True

    def __init__(
        self,
        policies: Sequence[TokenPolicy],
        storage: str | Storage = "native",
        prefill: str = "streaming",
        reserve: int = 0,
        binder: KernelBinder | None = None,
    ) -> None:
        super().__init__()
        if prefill not in ("streaming", "legacy"):
            raise InputError(f"cache: prefill rule {prefill!r} is unknown", fix="prefill='streaming' or prefill='legacy'")
        self.policies = tuple(policies)
        self.prefill = prefill
        self.storage = storage_format(storage)
        self.reserve = reserve
        self.binder = binder or KernelBinder()
        self.kernels = NONE
        self.cumulative_length = 0
        self.recording = False
        self._undo: list[_Undo] = []
        self.first: torch.Tensor | None = None
        self.groups = self._make_groups()
        self.slots = self._slots()

    def _slots(self) -> tuple[int, ...] | None:
        """Per kv-head: place among the full heads (>= 0) or -1 - place among the streaming ones; None when streaming heads differ in sizes."""
        if sum(group.streaming for group in self.groups) > 1:
            return None
        places = {head: -1 - i if group.streaming else i for group in self.groups for i, head in enumerate(group.heads)}
        return tuple(places[head] for head in range(len(self.policies)))

    def _make_groups(self) -> list[HeadGroup]:
        by_policy: dict[tuple[str, int, int], list[int]] = {}
        for head, policy in enumerate(self.policies):
            key = ("full", 0, 0) if policy.kind == "full" else (policy.kind, policy.sink, policy.recent)
            if key[0] not in ("full", "sink-recent"):
                raise InputError(f"cache: token policy {policy.kind!r} of kv-head {head} is unknown", fix="use 'full' or 'sink-recent'")
            by_policy.setdefault(key, []).append(head)
        groups = []
        for (kind, sink, recent), heads in sorted(by_policy.items()):
            policy = TokenPolicy(kind, sink, recent)
            store = GrowingStore(self.storage, self.reserve) if kind == "full" else SinkRingStore(self.storage, sink, recent)
            groups.append(HeadGroup(policy, tuple(heads), store))
        return groups

    # -- transformers ---------------------------------------------------------------------------------------------------------

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.kernels = self.binder.at(key_states.device, key_states.dtype, key_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object) -> tuple[LayerView, LayerView]:  # type: ignore[override]
        """New keys and values [batch, kv heads, new, dim] -> a view for the attention function (twice)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if key_states.shape[1] != len(self.policies):
            raise InputError(
                f"cache: layer has {len(self.policies)} kv-heads, got keys with {key_states.shape[1]}", fix="build the cache from this model's config"
            )
        view = LayerView(self, (key_states, value_states), self.cumulative_length)
        return view, view

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cumulative_length + query_length, 0

    def get_seq_length(self) -> int:
        """True number of tokens seen (position ids depend on it), not the number stored."""
        return self.cumulative_length

    def get_max_length(self) -> int:
        return -1

    # -- growth ---------------------------------------------------------------------------------------------------------------

    @property
    def length(self) -> int:
        return self.cumulative_length

    def append(self, *tensors: torch.Tensor, commit: bool = True) -> tuple[torch.Tensor, ...]:
        """:class:`~zoo_core.interfaces.LayerState`: add tokens directly, without attention.

        Returns the values a full-attention read would see for the first group (mostly useful for tests and tools).
        """
        if not self.is_initialized:
            self.lazy_initialization(*tensors[:2])
        if commit:
            self.commit(tensors)
            return tuple(self.groups[0].store.values(i, tensors[0].dtype) for i in range(len(tensors)))
        heads = list(self.groups[0].heads)
        store = self.groups[0].store
        new = tuple(t[:, heads] for t in tensors)
        if not store.buffers:
            return new
        return tuple(torch.cat((store.values(i, t.dtype), t), dim=-2) for i, t in enumerate(new))

    def commit(self, tensors: Sequence[torch.Tensor], first: torch.Tensor | None = None) -> None:
        """Keep the new tokens; ``first`` [batch] is the first real column of each row (left padding), None without padding."""
        self.begin(tensors, first)
        for group in self.groups:
            group.append(self.select(group, tensors), first)
        self.end(tensors)

    def begin(self, tensors: Sequence[torch.Tensor], first: torch.Tensor | None) -> None:
        """First half of :meth:`commit`: remember what :meth:`crop` may need.  Each group must be appended to exactly once between this and :meth:`end`."""
        self.first = first
        if self.recording:
            states = {i: g.store.snapshot() for i, g in enumerate(self.groups) if isinstance(g.store, SinkRingStore)}
            self._undo.append(_Undo(states, self.cumulative_length, tuple(tensors), first))

    def end(self, tensors: Sequence[torch.Tensor]) -> None:
        """Second half of :meth:`commit`: the true length grows."""
        self.cumulative_length += tensors[0].shape[-2]

    def select(self, group: HeadGroup, tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """The group's heads of [batch, kv heads, ...] tensors (the tensors themselves when the group has all heads)."""
        return tensors if len(group.heads) == len(self.policies) else [t[:, list(group.heads)] for t in tensors]

    # -- shrinking and selecting ---------------------------------------------------------------------------------------------

    def activate_past_recording(self) -> None:
        """Remember recent calls so that :meth:`crop` can take tokens back (assisted decoding)."""
        self.recording = True

    def crop(self, length: int) -> None:
        """Forget everything after the first ``length`` tokens; a number <= 0 takes back that many of the last ones (transformers' form).

        Raises:
            InputError: Streaming heads already forgot what would be needed and the past was not recorded.
        """
        remove = max(0, self.cumulative_length - length) if length > 0 else -length
        target = self.cumulative_length - remove
        if remove == 0:
            self._undo.clear()
            return
        if target <= 0:
            self.reset()
            return
        streaming = [g for g in self.groups if isinstance(g.store, SinkRingStore)]
        replay: _Undo | None = None
        while streaming and self._undo and self._undo[-1].length >= target:
            replay = self._undo.pop()
        if streaming and self._undo and replay is None and self.cumulative_length > target:
            replay = self._undo.pop()
        if streaming and (replay is None or replay.length > target):
            keeps_all = all(g.store.length <= g.policy.sink + g.policy.recent + 1 for g in streaming)
            if not keeps_all:
                raise InputError(
                    f"cache: cannot remove {remove} tokens after streaming heads dropped older ones",
                    fix="call cache.activate_past_recording() before the calls that may be taken back",
                )
            for group in streaming:
                group.store.length = target
        for group in self.groups:
            if isinstance(group.store, GrowingStore):
                group.store.crop(target)
        if replay is not None and replay.length <= target:
            for i, state in replay.states.items():
                store = self.groups[i].store
                assert isinstance(store, SinkRingStore)
                store.restore(state)
                keep = target - replay.length
                if keep:
                    heads = list(self.groups[i].heads)
                    with torch.inference_mode(any(part.is_inference() for parts in store.buffers for part in parts)):
                        store.append([t[:, heads, :keep] for t in replay.new], replay.first)
        self.cumulative_length = target
        self._undo.clear()

    def reset(self) -> None:
        self.keys = self.values = None
        self.is_initialized = False
        self.cumulative_length = 0
        self._undo.clear()
        self.first = None
        self.groups = self._make_groups()

    def _map_batch(self, index: torch.Tensor) -> None:
        for group in self.groups:
            group.store.map_batch(lambda part: part.index_select(0, index.to(part.device)))
        if self.first is not None:
            self.first = self.first.index_select(0, index.to(self.first.device))

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:  # type: ignore[override]
        if self.cumulative_length:
            self._map_batch(beam_idx)

    reorder = reorder_cache
    batch_select_indices = reorder_cache

    def batch_repeat_interleave(self, repeats: int) -> None:
        for group in self.groups:
            group.store.map_batch(lambda part: part.repeat_interleave(repeats, dim=0))

    def memory(self) -> MemoryReport:
        sizes = {group.policy.kind: group.store.bytes() for group in self.groups}
        used, allocated, overhead = (sum(s[i] for s in sizes.values()) for i in range(3))
        return MemoryReport(used, allocated, overhead, self.cumulative_length, {kind: s[0] for kind, s in sizes.items()})


class PolicyCache(Cache):
    """All layers; pass it as ``past_key_values`` to a model whose attention implementation is :data:`zoo_llm.caches.attention.NAME`."""

    def __init__(self, layers: Sequence[PolicyLayer]) -> None:
        super().__init__(layers=list(layers))

    def memory(self) -> MemoryReport:
        """Exact bytes over all layers."""
        reports = [layer.memory() for layer in self.layers]  # type: ignore[union-attr]
        parts: dict[str, int] = {}
        for report in reports:
            for kind, used in report.parts.items():
                parts[kind] = parts.get(kind, 0) + used
        return MemoryReport(
            sum(r.used for r in reports),
            sum(r.allocated for r in reports),
            sum(r.overhead for r in reports),
            max((r.tokens for r in reports), default=0),
            parts,
        )
