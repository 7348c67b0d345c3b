"""One process, or many under torchrun: sharded (FSDP2) or replicated.

``torchrun --nproc-per-node 8 -m zoo train NAME ...`` needs nothing else: :class:`World` reads torchrun's environment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class World:
    """This process among its peers.

    Attributes:
        rank, size: Global rank and number of processes (0 and 1 without torchrun).
        device: Where this process computes.
    """

    def __init__(self, device: str = "auto") -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.device = pick_device(device, int(os.environ.get("LOCAL_RANK", "0")))
        self.owns_group = False
        if self.size > 1:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            if not dist.is_initialized():
                dist.init_process_group("cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo", timeout=timedelta(minutes=30))
                self.owns_group = True

    @property
    def main(self) -> bool:
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.size == 1:
            return flag
        value = torch.tensor(int(flag))
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return bool(value)

    def mean(self, values: Tensor) -> Tensor:
        """Average over the processes."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.size
        return values

    def gather(self, value: Any) -> list[Any]:
        """Python objects of all processes, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def share(self, value: Any) -> Any:
        """The main process's object, everywhere."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def close(self, *, wait: bool = False) -> None:
        """Leave the group.

        Args:
            wait: Until all processes are here: one that goes while another still reads from it would abort the other.  Not after an error in this process
                alone, which the others do not know of.
        """
        if self.owns_group and dist.is_initialized():
            if wait:
                dist.barrier()
            dist.destroy_process_group()
            self.owns_group = False
            # Gloo's worker threads drop the last collective's tensors only after it is over, and need the interpreter's lock for that.  A process that ends
            # before they had it is aborted ("terminate called without an active exception"): let them have it once.
            time.sleep(0.25)


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """``auto`` is this process's CUDA device when there is one, else the CPU."""
    from zoo_core.errors import DeviceError

    if name == "auto":
        name = f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"
    device = torch.device(f"cuda:{local_rank}" if name == "cuda" else name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"device {name!r} is not on this machine", fix="device=cpu")
    return device


def distribute(
    world: World,
    modules: Mapping[str, nn.Module],
    mode: str,
    *,
    bfloat16: bool = False,
    forward_methods: Mapping[str, Sequence[str]] | None = None,
    blocks: Mapping[str, Iterable[nn.Module]] | None = None,
) -> None:
    """Give all processes the main process's weights; under ``fsdp`` also shard every module in place.

    Args:
        forward_methods: Module name -> methods beside ``forward`` that compute with the module (``encode``, ``decode``): FSDP must gather parameters for them.
        blocks: Module name -> sub-modules that are gathered one at a time (default: the elements of every ``ModuleList``).
    """
    if world.size == 1:
        return
    for module in modules.values():
        for value in [*module.parameters(), *module.buffers()]:
            dist.broadcast(value.detach(), src=0)
    if mode != "fsdp":
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(world.device.type, (world.size,))
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if bfloat16 else MixedPrecisionPolicy()
    for name, module in modules.items():
        inner = (blocks or {}).get(name)
        if inner is None:
            inner = [block for part in module.modules() if isinstance(part, nn.ModuleList) for block in part]
        for block in inner:
            if any(p.requires_grad for p in block.parameters()):
                fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(module, mesh=mesh, mp_policy=policy)
        for method in (forward_methods or {}).get(name, ()):
            register_fsdp_forward_method(module, method)


def average_gradients(world: World, parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their mean over the processes (``replicate``); parameters without a gradient count as zero."""
    gradients = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    for dtype in {gradient.dtype: None for gradient in gradients}:  # one message per dtype: a call per tensor costs more than the bytes
        mine = [gradient for gradient in gradients if gradient.dtype == dtype]
        flat = torch.cat([gradient.reshape(-1) for gradient in mine])
        dist.all_reduce(flat)
        flat /= world.size
        for gradient, part in zip(mine, flat.split([gradient.numel() for gradient in mine])):
            gradient.copy_(part.view(gradient.shape))


def full(value: Tensor) -> Tensor:
    """Whole tensor on the CPU (a collective call when it is sharded)."""
    from torch.distributed.tensor import DTensor

    return (value.full_tensor() if isinstance(value, DTensor) else value).detach().cpu()


def like(value: Tensor, reference: Tensor) -> Tensor:
    """``value`` (whole) on the device, in the dtype and, where shapes agree, with the sharding of ``reference``."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    value = value.to(reference.device)
    if isinstance(reference, DTensor) and value.shape == reference.shape:
        return distribute_tensor(value, reference.device_mesh, reference.placements, src_data_rank=None)
    return value
