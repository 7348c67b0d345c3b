"""Training in two processes (gloo, CPU) and the CAME optimiser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from zoo_core.training import CAME, Batches, TrainConfig, Trainer, latest_checkpoint, load_weights, seed_everything

SCRIPT = textwrap.dedent("""
    import sys, torch
    from torch import nn
    from zoo_core.training import Batches, TrainConfig, Trainer, seed_everything
    import os

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(4, 6), nn.Linear(6, 6)])
            self.head = nn.Linear(6, 1)
        def encode(self, x):
            for block in self.blocks:
                x = block(x).tanh()
            return x
        def forward(self, x):
            return self.head(self.encode(x))

    output, parallel, steps, gan = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "gan"
    torch.set_num_threads(1)
    seed_everything(1)
    net, critic = Net(), nn.Linear(6, 1)
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(2))
    config = TrainConfig(output=output, steps=steps, batch_size=8 // size, lr=0.01, ema=0.9, clip_grad=1.0, accumulate=2, parallel=parallel,
                         log_every=1, save_every=0, tensorboard=False, device="cpu")

    def step(batch, state):
        features = net.encode(batch["x"])
        loss = (net(batch["x"]) - batch["y"]).square().mean() + 0.1 * features.square().mean()
        if not gan:
            return {"loss": loss}
        return {"loss/net": loss - critic(features).mean() * 0.1, "loss/critic": critic(features.detach()).square().mean()}

    data = Batches({"x": x, "y": x.sum(1, keepdim=True)}, config.batch_size, rank=rank, world_size=size)
    modules, optimisers = {"net": net}, {"net": torch.optim.AdamW(net.parameters(), lr=config.lr)}
    if gan:
        modules["critic"], optimisers["critic"] = critic, lambda p: torch.optim.SGD(p, lr=0.01)
    result = Trainer(config, modules, optimisers, step, data, forward_methods={"net": ["encode"]}).run()
    print(result["step"], result["stopped"])
""")


def launch(folder: Path, processes: int, parallel: str, steps: int, kind: str = "plain") -> str:
    script = folder.parent / "script.py"
    script.write_text(SCRIPT)
    python = [sys.executable] if processes == 1 else [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*python, str(script), str(folder), parallel, str(steps), kind]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    return "" if done.returncode == 0 else done.stderr


def close(a: Path, b: Path, module: str) -> bool:
    for ema in (False, True):
        wanted, got = load_weights(a, module, ema=ema), load_weights(b, module, ema=ema)
        if wanted.keys() != got.keys() or not all(torch.allclose(got[key], wanted[key], atol=1e-6) for key in wanted):
            return False
    return True


@pytest.mark.slow
def test_two_sharded_processes_equal_one_and_resume(tmp_path: Path) -> None:
    """FSDP2 in two processes makes the weights of one process with the whole batch; it resumes exactly, and its checkpoint serves one process too."""
    one, shards, cut = (tmp_path / name for name in ("one", "fsdp", "cut"))
    assert not launch(one, 1, "fsdp", 4)
    assert not launch(shards, 2, "fsdp", 4)
    assert close(one, shards, "net")
    assert not launch(cut, 2, "fsdp", 2)
    assert not launch(cut, 2, "fsdp", 4)
    whole, resumed = load_weights(shards, "net", ema=False), load_weights(cut, "net", ema=False)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert not launch(cut, 1, "fsdp", 5)  # another number of processes
    assert json.loads((latest_checkpoint(cut) / "state.json").read_text())["step"] == 5


@pytest.mark.slow
def test_two_replicas_of_an_adversarial_recipe_equal_one(tmp_path: Path) -> None:
    assert not launch(tmp_path / "one", 1, "replicate", 3, "gan")
    assert not launch(tmp_path / "two", 2, "replicate", 3, "gan")
    assert close(tmp_path / "one", tmp_path / "two", "net") and close(tmp_path / "one", tmp_path / "two", "critic")
    assert "parallel=replicate" in launch(tmp_path / "refused", 2, "fsdp", 3, "gan")


def test_came_first_update_by_hand() -> None:
    """Algorithm 2 of the paper at the first step, for one matrix."""
    parameter = nn.Parameter(torch.zeros(3, 4))
    gradient = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    parameter.grad = gradient.clone()
    lr, (b1, b2, b3), (e1, e2) = 0.1, (0.9, 0.999, 0.9999), (1e-30, 1e-16)
    CAME([parameter], lr=lr).step()

    square = gradient.double() ** 2 + e1
    row, column = (1 - b2) * square.sum(1), (1 - b2) * square.sum(0)
    second = row[:, None] * column[None] / row.sum()
    update = gradient.double() / second.sqrt()
    update = update / max(1.0, float(update.square().mean().sqrt()))
    momentum = (1 - b1) * update
    instability = (update - momentum) ** 2 + e2
    row, column = (1 - b3) * instability.sum(1), (1 - b3) * instability.sum(0)
    confidence = row[:, None] * column[None] / row.sum()
    assert torch.allclose(parameter.detach().double(), -lr * momentum / confidence.sqrt(), rtol=1e-4)


def test_came_resumes_exactly(tmp_path: Path) -> None:
    def run(folder: Path, *, stop: int = 0, **changes) -> None:
        seed_everything(0)
        net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(8, 1))
        config = TrainConfig(output=str(folder), steps=6, batch_size=2, lr=1e-3, tensorboard=False, device="cpu")

        def step(batch, state):
            if stop and state.step == stop - 1:
                state.stop()
            return {"loss": net(batch["x"]).square().mean()}

        data = Batches({"x": torch.randn(8, 1, 2, 2, generator=torch.Generator().manual_seed(1))}, 2)
        Trainer(config, {"net": net}, {"net": CAME(net.parameters(), lr=config.lr)}, step, data).run()

    run(tmp_path / "whole")
    run(tmp_path / "cut", stop=3)
    run(tmp_path / "cut")
    for name in ("net", "optimiser-net"):
        a, b = ((latest_checkpoint(tmp_path / folder) / f"{name}.safetensors").read_bytes() for folder in ("whole", "cut"))
        assert a == b
