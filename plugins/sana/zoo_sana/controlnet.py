"""ControlNet for Sana: copies of the first blocks steer the main transformer (fact sheet section 5, end)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo_core.checkpoint import KeyMap, Rename
from zoo_sana.config import TransformerConfig
from zoo_sana.layers import Block
from zoo_sana.layouts import diffusers_keymap
from zoo_sana.transformer import Caption, SanaTransformer


class SanaControlNet(SanaTransformer):
    """Residuals for the main transformer from a control latent.

    Args:
        config: The copied blocks' shape (``layers`` = number of copies).
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        del self.out, self.out_table
        width = config.width
        self.input_block = nn.Linear(width, width)
        self.controls = nn.ModuleList(nn.Linear(width, width) for _ in range(config.layers))
        for layer in (self.input_block, *self.controls):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @property
    def dtype(self) -> torch.dtype:
        return self.input_block.weight.dtype

    def residuals(
        self, latents: Tensor, caption: Tensor | Caption, times: Tensor, control: Tensor, mask: Tensor | None = None, *, strength: float = 1.0
    ) -> list[Tensor]:
        """One [B, N, C] tensor per copied block, already multiplied by ``strength``.

        Args:
            latents: Noisy latents [B, c, h, w].
            control: Encoded control picture [B or 1, c, h, w] in the diffusion scale.
        """
        prepared = caption if isinstance(caption, Caption) else self.caption(caption, mask)
        x, size = self.tokens(latents)
        extra, _ = self.tokens(control)
        x = x + self.input_block(extra)
        _, modulation = self.time(times)
        unit = modulation.new_tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0])[:, None]
        results = []
        for block, gate, memory in zip(self.blocks, self.controls, prepared.memory, strict=True):
            assert isinstance(block, Block)
            x = block(x, block.table + modulation.unflatten(1, (6, -1)) + unit, memory, prepared.bias, size)
            results.append(strength * gate(x))
        return results


def controlnet_keymap(config: TransformerConfig | None = None) -> KeyMap:
    """Keys of a published ``controlnet`` folder -> module keys."""
    own = [Rename("controlnet_blocks.{i}.{x}", "controls.{i}.{x}")]
    return KeyMap([*own, *diffusers_keymap(config).steps])


def stack_controls(parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Residuals of several branches, stacked along the batch."""
    return [torch.cat(tensors) for tensors in zip(*parts, strict=True)]


__all__ = ["SanaControlNet", "controlnet_keymap", "stack_controls"]
