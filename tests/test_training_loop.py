"""The training seam: exact resume, GAN recipes, budgets, interruption, faults."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from zoo_core.errors import ConfigError, TrainingError
from zoo_core.training import Batches, TrainConfig, Trainer, TrainState, latest_checkpoint, load_weights, read_log, seed_everything


def config(folder: Path, **changes) -> TrainConfig:
    settings = {"output": str(folder), "steps": 12, "batch_size": 4, "lr": 1e-2, "log_every": 1, "save_every": 5, "tensorboard": False, "device": "cpu"}
    return TrainConfig(**(settings | changes))


def table(rows: int = 26) -> dict[str, torch.Tensor]:
    x = torch.randn(rows, 3, generator=torch.Generator().manual_seed(5))
    return {"x": x, "y": x.sum(1, keepdim=True)}


def network() -> nn.Module:
    seed_everything(3)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))


def trainer(c: TrainConfig, stop_at: int | None = None, data=None, **options) -> Trainer:
    net = network()

    def step(batch, state: TrainState):
        if stop_at is not None and state.step == stop_at - 1:
            state.stop("test")
        noise = 0.01 * torch.randn(batch["x"].shape, generator=state.generator)
        state.extra["seen"] = state.extra.get("seen", 0) + len(noise)
        return {"loss": (net(batch["x"] + noise) - batch["y"]).square().mean()}

    def jitter(batch, generator):
        return {**batch, "x": batch["x"] + 0.01 * torch.randn(batch["x"].shape, generator=generator)}

    source = data if data is not None else Batches(table(), c.batch_size, seed=c.seed, transform=jitter)
    return Trainer(c, {"net": net}, {"net": torch.optim.AdamW(net.parameters(), lr=c.lr)}, step, source, **options)


def files(folder: Path) -> dict[str, bytes]:
    path = latest_checkpoint(folder)
    assert path is not None
    return {file.name: file.read_bytes() for file in path.iterdir() if file.suffix == ".safetensors"}


class Rows(torch.utils.data.Dataset):
    """Augments with the global generator, as many data sets do."""

    def __len__(self) -> int:
        return 26

    def __getitem__(self, index: int):
        return {"x": table()["x"][index] + 0.01 * torch.randn(3), "y": table()["y"][index]}


@pytest.mark.parametrize("source", ["batches", "loader"])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path, source: str) -> None:
    shape = {"accumulate": 2, "ema": 0.9, "clip_grad": 0.5, "warmup": 3, "schedule": "cosine"}

    def data():
        return DataLoader(Rows(), batch_size=4, shuffle=True) if source == "loader" else None

    whole = trainer(config(tmp_path / "whole", **shape), data=data()).run()
    first = trainer(config(tmp_path / "cut", **shape), stop_at=7, data=data()).run()
    assert first["stopped"] == "test" and first["step"] == 7
    torch.rand(17)  # the process that goes on is in another random state
    second = trainer(config(tmp_path / "cut", **shape), data=data()).run()
    assert second["step"] == whole["step"] == 12
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    losses = [[row["loss"] for row in read_log(tmp_path / name)] for name in ("whole", "cut")]
    assert losses[0] == losses[1] and len(losses[0]) == 12
    states = [json.loads((latest_checkpoint(tmp_path / name) / "state.json").read_text()) for name in ("whole", "cut")]
    assert [state["extra"]["seen"] for state in states] == ([96, 96] if source == "batches" else [90, 90])  # the loader has a short last batch


def test_evaluation_does_not_disturb_the_training(tmp_path: Path) -> None:
    seen = []

    def evaluate(state: TrainState):
        torch.rand(3), torch.rand(2, generator=state.generator)
        assert not state.modules["net"].training
        seen.append(state.step)
        return {"score": float(torch.rand(1))}

    trainer(config(tmp_path / "without")).run()
    result = trainer(config(tmp_path / "with", eval_every=5), evaluate=evaluate).run()
    assert seen == [5, 10, 12]
    assert files(tmp_path / "with") == files(tmp_path / "without")
    assert result["evaluation"]["score"] == read_log(tmp_path / "with", "eval")[0]["score"]  # same seed every time


def test_ema_weights_are_used_for_evaluation_and_restored(tmp_path: Path) -> None:
    inside = {}

    def evaluate(state: TrainState):
        inside.update({key: value.clone() for key, value in state.modules["net"].state_dict().items()})
        return {}

    trainer(config(tmp_path, ema=0.5), evaluate=evaluate).run()
    averaged, raw = load_weights(tmp_path, "net"), load_weights(tmp_path, "net", ema=False)
    assert all(torch.equal(inside[key], averaged[key].to(inside[key].dtype)) for key in averaged)
    assert not torch.equal(averaged["0.weight"], raw["0.weight"])


def test_accumulation_equals_a_larger_batch(tmp_path: Path) -> None:
    results = []
    for name, batch_size, accumulate in (("a", 8, 1), ("b", 4, 2)):
        net = nn.Linear(3, 1)
        nn.init.ones_(net.weight), nn.init.zeros_(net.bias)
        c = config(tmp_path / name, batch_size=batch_size, accumulate=accumulate, steps=3)
        data = Batches(table(24), batch_size, shuffle=False)
        Trainer(
            c, {"net": net}, {"net": torch.optim.SGD(net.parameters(), lr=0.1)}, lambda b, s, n=net: {"loss": (n(b["x"]) - b["y"]).square().mean()}, data
        ).run()
        results.append(net.weight.detach().clone())
    assert torch.allclose(*results, atol=1e-6)


def test_adversarial_recipe_two_optimisers_alternating(tmp_path: Path) -> None:
    seed_everything(0)
    maker, critic = nn.Linear(2, 2), nn.Linear(2, 1)
    critic_steps = []
    gradients: dict[str, torch.Tensor] = {}

    def step(batch, state: TrainState):
        fake = maker(batch["z"])
        losses = {"loss/maker": -critic(fake).mean(), "fake": fake.mean()}
        if state.step % 2:
            critic_steps.append(state.step)
            losses["loss/critic"] = (critic(fake.detach()) - critic(batch["x"])).mean()
            gradients["expected"] = torch.autograd.grad(losses["loss/critic"], critic.weight, retain_graph=True)[0]
        before["critic"] = critic.weight.detach().clone()
        return losses

    before: dict[str, torch.Tensor] = {}
    data = {"z": torch.randn(8, 2), "x": torch.randn(8, 2) + 1}
    c = config(tmp_path, steps=4, lr=0.1)
    optimisers = {"maker": lambda p: torch.optim.Adam(p, lr=c.lr), "critic": lambda p: torch.optim.SGD(p, lr=c.lr)}
    result = Trainer(c, {"maker": maker, "critic": critic}, optimisers, step, Batches(data, 4)).run()
    assert critic_steps == [1, 3]
    # the maker's loss must not have leaked gradients into the critic
    assert torch.allclose(critic.weight, before["critic"] - c.lr * gradients["expected"], atol=1e-7)
    assert {"loss/maker", "loss/critic", "fake", "lr/maker"} <= result["train"].keys() | {"lr/maker"}


def test_learns_something(tmp_path: Path) -> None:
    net = nn.Linear(3, 1)
    c = config(tmp_path, steps=200, lr=0.05, log_every=50, precision="bfloat16")
    Trainer(
        c,
        {"net": net},
        {"net": torch.optim.AdamW(net.parameters(), lr=c.lr)},
        lambda b, s: {"loss": (net(b["x"]).float() - b["y"]).square().mean()},
        Batches(table(), 4),
    ).run()
    rows = read_log(tmp_path)
    assert rows[-1]["loss"] < 0.05 * rows[0]["loss"]


def test_warmup_reaches_the_peak_and_cosine_the_floor(tmp_path: Path) -> None:
    trainer(config(tmp_path, warmup=4, schedule="cosine", final_lr=0.1, steps=20)).run()
    rates = [row["lr"] for row in read_log(tmp_path)]
    assert rates[0] == pytest.approx(0.0025) and max(rates) == pytest.approx(0.01) and rates[-1] == pytest.approx(0.001)


def test_time_budget_ends_cleanly_with_a_checkpoint(tmp_path: Path) -> None:
    began = time.monotonic()
    result = trainer(config(tmp_path, steps=10**6, max_seconds=0.3, log_every=1000, save_every=0)).run()
    assert time.monotonic() - began < 5
    assert result["stopped"] == "time" and 0 < result["step"] < 10**6
    assert Path(result["checkpoint"]) == latest_checkpoint(tmp_path)


def test_keeps_the_newest_checkpoints(tmp_path: Path) -> None:
    trainer(config(tmp_path, save_every=2, keep=2)).run()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000010", "step-00000012"]


def test_a_loss_that_is_nan_stops_and_saves_nothing(tmp_path: Path) -> None:
    net = nn.Linear(3, 1)

    def step(batch, state):
        return {"loss": net(batch["x"]).mean() * (math.nan if state.step == 6 else 1.0)}

    c = config(tmp_path, log_every=100)
    with pytest.raises(TrainingError, match="diverged"):
        Trainer(c, {"net": net}, {"net": torch.optim.SGD(net.parameters(), lr=0.1)}, step, Batches(table(), 4)).run()
    assert latest_checkpoint(tmp_path).name == "step-00000005"
    assert torch.isfinite(load_weights(tmp_path, "net")["weight"]).all()


def test_resume_modes(tmp_path: Path) -> None:
    trainer(config(tmp_path / "a", steps=3)).run()
    with pytest.raises(TrainingError, match="already holds a run"):
        trainer(config(tmp_path / "a", resume="never")).run()
    with pytest.raises(TrainingError, match="no checkpoint there"):
        trainer(config(tmp_path / "b", resume=str(tmp_path / "absent"))).run()
    assert trainer(config(tmp_path / "b", resume=str(tmp_path / "a"), steps=4)).run()["step"] == 4
    assert trainer(config(tmp_path / "a", steps=3)).run()["step"] == 3  # already done: nothing to do, no error


def test_a_foreign_or_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    trainer(config(tmp_path, steps=2)).run()
    net = nn.Linear(3, 2)
    other = Trainer(
        config(tmp_path), {"net": net}, {"net": torch.optim.SGD(net.parameters(), lr=0.1)}, lambda b, s: {"loss": net(b["x"]).mean()}, Batches(table(), 4)
    )
    with pytest.raises(TrainingError, match="another architecture"):
        other.run()
    (latest_checkpoint(tmp_path) / "net.safetensors").write_bytes(b"short")
    with pytest.raises(TrainingError, match=r"cannot read net\.safetensors"):
        trainer(config(tmp_path)).run()


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ema=1\.5"):
        config(tmp_path, ema=1.5)
    with pytest.raises(ConfigError, match="precision"):
        replace(config(tmp_path), precision="float8")
    with pytest.raises(TrainingError, match="too few for one batch"):
        Batches(table(3), 4)
    net = nn.Linear(3, 1)
    run = Trainer(
        config(tmp_path), {"net": net}, {"net": torch.optim.SGD(net.parameters(), lr=0.1)}, lambda b, s: {"los": net(b["x"]).mean()}, Batches(table(), 4)
    )
    with pytest.raises(TrainingError, match="returned no loss"):
        run.run()
    short = Trainer(
        config(tmp_path / "s"),
        {"net": net},
        {"net": torch.optim.SGD(net.parameters(), lr=0.1)},
        lambda b, s: {"loss": net(b["x"]).mean()},
        iter([table(4)] * 3),
    )
    with pytest.raises(TrainingError, match="data ended"):
        short.run()


SCRIPT = """
    import sys, time, torch
    from torch import nn
    from zoo_core.training import Batches, TrainConfig, Trainer
    net = nn.Linear(3, 1)
    def step(batch, state):
        time.sleep(0.02)
        return {"loss": net(batch["x"]).square().mean()}
    c = TrainConfig(output=sys.argv[1], steps=100000, batch_size=2, save_every=0, log_every=1, tensorboard=False, device="cpu")
    Trainer(c, {"net": net}, {"net": torch.optim.AdamW(net.parameters(), lr=c.lr)}, step, Batches({"x": torch.randn(8, 3)}, 2)).run()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, (-signal.SIGINT, 130)), (signal.SIGTERM, (143,)), (signal.SIGKILL, (-signal.SIGKILL,))])
def test_signals(tmp_path: Path, number: signal.Signals, code: tuple[int, ...]) -> None:
    """Ctrl-C and SIGTERM leave a checkpoint; SIGKILL leaves the log readable and no half checkpoint."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path)], env=environment, stderr=subprocess.DEVNULL)
    log = tmp_path / "log.jsonl"
    for _ in range(600):
        if log.exists() and len(log.read_text().splitlines()) > 3:
            break
        time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(30) in code
    assert len(read_log(tmp_path)) >= 2
    checkpoint = latest_checkpoint(tmp_path)
    if number == signal.SIGKILL:
        assert checkpoint is None
    else:
        assert checkpoint is not None and json.loads((checkpoint / "state.json").read_text())["step"] >= 2


def test_a_half_written_log_line_and_repeated_steps_are_read_right(tmp_path: Path) -> None:
    trainer(config(tmp_path, steps=6, save_every=2, keep=0)).run()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"event": "train", "ste')
    for folder in sorted((tmp_path / "checkpoints").iterdir())[2:]:
        (folder / "state.json").unlink()
    trainer(config(tmp_path, steps=8)).run()
    assert [row["step"] for row in read_log(tmp_path)] == list(range(1, 9))


def test_plain_loader_without_length_or_state(tmp_path: Path) -> None:
    data = TensorDataset(table()["x"])
    net = nn.Linear(3, 1)
    c = config(tmp_path, steps=9)
    result = Trainer(
        c, {"net": net}, {"net": torch.optim.SGD(net.parameters(), lr=0.01)}, lambda b, s: {"loss": net(b[0]).square().mean()}, DataLoader(data, 10)
    ).run()
    assert result["step"] == 9
