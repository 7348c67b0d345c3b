"""The builder named in ``registry.yaml``."""

from __future__ import annotations

import torch

from zoo_core.checkpoint import load_into, open_checkpoint
from zoo_core.errors import ConfigError
from zoo_core.interfaces import BuildRequest
from zoo_dct_codec.model import Codec
from zoo_dct_codec.network import BlockTransform

OPTIONS_OF_CORE = ("cache", "quant", "adapter", "kernels", "compile")


def build_codec(request: BuildRequest) -> Codec:
    """Read the transform from a file, or compute it (``weights="random"``: there is nothing to draw, so every seed gives the formula)."""
    unknown = [name for name in request.options if name not in OPTIONS_OF_CORE]
    if unknown:
        raise ConfigError(f"{request.spec.name} does not know the options {unknown}", fix="leave them out")
    config = request.config.check()
    dtype = request.dtype_for("transform", torch.float32)
    if request.weights.random:
        with torch.device(request.device):
            network = BlockTransform(config)
        network = (network if request.device.type == "meta" else network.fill(config)).to(dtype)
    else:
        with torch.device("meta"):
            network = BlockTransform(config)
        source = open_checkpoint(list(request.weights.files.values()) or [request.weights.root])
        load_into(network, source, dtype=dtype, device=request.device, component="transform", report=request.report)
    return Codec(request.spec, config, network.eval(), request.report)
