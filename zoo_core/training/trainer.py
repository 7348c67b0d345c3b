"""The training loop."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo_core.errors import TrainingError
from zoo_core.training import snapshot, store
from zoo_core.training.config import TrainConfig
from zoo_core.training.data import Cursor
from zoo_core.training.ema import Ema
from zoo_core.training.log import Log
from zoo_core.training.meter import Meter, to_device
from zoo_core.training.parallel import World, average_gradients, distribute, full
from zoo_core.training.schedule import factor
from zoo_core.training.seeding import isolated_rng, mix, seed_everything
from zoo_core.training.state import TrainState

Step = Callable[[Any, TrainState], Mapping[str, Any]]
OptimiserLike = torch.optim.Optimizer | Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class Trainer:
    """Runs a recipe's step function until ``config.steps`` optimiser steps are done.

    Args:
        config: Settings; kept in ``config.json`` and in every checkpoint.
        modules: Every module with weights that the run changes (name -> module).  Frozen helpers (text encoder, perceptual network) stay outside.
        optimisers: Name -> optimiser, or a function of a parameter list.  A function named like a module gets that module's trainable parameters, else
            those of all modules.
        step: ``step(batch, state) -> losses`` for one micro-batch.  With one optimiser return ``{"loss": ...}``; with several ``{"loss/<optimiser>": ...}``
            for those that should step now (leave one out to skip it: alternation).  Each loss gives gradients to its own optimiser's parameters only, and
            all backward passes come before all optimiser steps, so the two losses of a GAN may come from one forward pass (with ``detach`` for the
            critic).  Other scalars in the result are logged.
        data: Iterable of batches (:class:`~zoo_core.training.Batches`, a ``DataLoader``...); walked again when it ends.
        evaluate: ``evaluate(state) -> numbers``, called in eval mode, without gradients, with averaged weights when EMA is on, with fixed seeds, and leaving
            the training's generators untouched.
        ema_modules: Modules to average (default: all).
        schedule: Own multiplier of the learning rates, ``schedule(step, optimiser_name) -> float``, instead of the config's.
        forward_methods, blocks: For FSDP; see :func:`zoo_core.training.parallel.distribute`.
        title: Word before the progress bar.

    A run that is interrupted (Ctrl-C, time budget, SIGTERM) saves a checkpoint; the same command goes on from it and, on a CPU, ends bit for bit where the
    uninterrupted run ends.
    """

    def __init__(
        self,
        config: TrainConfig,
        modules: Mapping[str, nn.Module],
        optimisers: Mapping[str, OptimiserLike],
        step: Step,
        data: Iterable[Any],
        evaluate: Callable[[TrainState], Mapping[str, Any]] | None = None,
        *,
        ema_modules: Sequence[str] | None = None,
        schedule: Callable[[int, str], float] | None = None,
        forward_methods: Mapping[str, Sequence[str]] | None = None,
        blocks: Mapping[str, Iterable[nn.Module]] | None = None,
        title: str = "train",
    ) -> None:
        config.validate()
        if not modules or not optimisers:
            raise TrainingError("a training run needs at least one module and one optimiser")
        self.config, self._step, self._evaluate, self.title = config, step, evaluate, title
        if config.threads:
            torch.set_num_threads(config.threads)
        self.world = World(config.device)
        self.sharded = self.world.size > 1 and config.parallel == "fsdp"
        if self.sharded and len(optimisers) > 1:
            raise TrainingError(f"{len(optimisers)} optimisers cannot be told apart in sharded gradients", fix="parallel=replicate")
        self.output = Path(config.output)
        self.modules = dict(modules)
        for module in self.modules.values():
            module.to(self.world.device).train()
        before = store.parameter_names(self.modules)
        bfloat16 = config.precision == "bfloat16"
        distribute(self.world, self.modules, config.parallel, bfloat16=bfloat16, forward_methods=forward_methods, blocks=blocks)
        self.names = store.parameter_names(self.modules)
        self.optimisers = {name: self._optimiser(name, value, before) for name, value in optimisers.items()}
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["initial_lr"] = group["lr"]
        self._schedule = schedule or (
            lambda index, name: factor(index, steps=config.steps, warmup=config.warmup, schedule=config.schedule, final=config.final_lr)
        )
        seed_everything(mix(config.seed, self.world.rank))
        self.state = TrainState(
            config=config,
            modules=self.modules,
            optimisers=self.optimisers,
            device=self.world.device,
            generator=torch.Generator(self.world.device).manual_seed(mix(config.seed, self.world.rank, 1)),
            folder=self.output,
            rank=self.world.rank,
            world_size=self.world.size,
        )
        if config.ema:
            self.state.ema = Ema({name: self.modules[name] for name in (ema_modules or self.modules)}, config.ema)
        self.cursor = Cursor(data, config.seed)
        if config.compile:
            for module in self.modules.values():
                module.compile()
        self._signal = 0

    # -- set-up --------------------------------------------------------------------------------------------------------------

    def _optimiser(self, name: str, value: OptimiserLike, before: Mapping[int, str]) -> torch.optim.Optimizer:
        if not isinstance(value, torch.optim.Optimizer):
            source = [self.modules[name]] if name in self.modules else list(self.modules.values())
            return value([p for module in source for p in module.parameters() if p.requires_grad])
        current = {key: p for module_name, module in self.modules.items() for key, p in ((f"{module_name}/{k}", p) for k, p in module.named_parameters())}
        for group in value.param_groups:  # sharding has replaced the parameters
            for parameter in group["params"]:
                if id(parameter) not in before:
                    raise TrainingError(f"optimiser {name!r} has a parameter that belongs to no module of the run", fix="pass its module in `modules`")
            group["params"] = [current[before[id(p)]] for p in group["params"]]
        return value

    def _resume(self) -> Path | None:
        wish = self.config.resume
        if wish in ("auto", "never"):
            path: Path | None = self.world.share(store.latest_checkpoint(self.output))
            if path is not None and wish == "never":
                raise TrainingError(f"{self.output} already holds a run (checkpoint {path.name})", fix="output=<another folder>, or resume=auto to go on")
        else:
            path = store.latest_checkpoint(wish)
            if path is None:
                raise TrainingError(f"resume={wish}: no checkpoint there", fix="give a run folder or one of its checkpoints")
        if path is not None:
            self.load(path)
        return path

    def load(self, path: Path) -> None:
        """Restore everything from a checkpoint folder."""
        snapshot.load(self, path)

    def save(self) -> Path:
        """Write a checkpoint of the current state (all processes must call it)."""
        return snapshot.save(self)

    # -- the loop ------------------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Train.

        Returns:
            ``step`` reached, ``stopped`` (``"steps"``, ``"time"`` or the reason given to ``state.stop``), ``seconds`` of this process, ``train`` (last logged
            scalars), ``evaluation`` (the last one), ``checkpoint`` and ``output``.

        Raises:
            TrainingError: A loss became NaN or infinite, the data ended, or the run cannot be resumed.
            KeyboardInterrupt: After Ctrl-C, once the checkpoint is saved.
        """
        began = time.monotonic()
        config, state = self.config, self.state
        resumed = self._resume()
        self.output.mkdir(parents=True, exist_ok=True)
        log = Log(self.output, steps=config.steps, start=state.step, enabled=self.world.main, tensorboard=config.tensorboard, title=self.title)
        checkpoint, evaluation, scalars = resumed, {}, {}
        evaluated, finished = -1, False
        try:
            if self.world.main:
                (self.output / "config.json").write_text(json.dumps(asdict(config), indent=1), encoding="utf-8")
            parameters = {name: sum(p.numel() for p in module.parameters()) for name, module in self.modules.items()}
            log.write(
                "start",
                state.step,
                {"resumed": str(resumed) if resumed else None, "parameters": parameters, "device": str(state.device), "processes": self.world.size},
            )
            if resumed:
                log.say(f"going on from {resumed} (step {state.step})")
            with self._signals(log):
                meter = Meter()
                while state.step < config.steps and not state.stop_reason:
                    meter.add(self._optimise())
                    state.step += 1
                    boundary = state.step % config.log_every == 0 or state.step == config.steps
                    if boundary:
                        scalars = self._log(log, meter)
                    if config.eval_every and state.step % config.eval_every == 0:
                        evaluation, evaluated = self._run_evaluation(log), state.step
                    over = bool(config.max_seconds) and time.monotonic() - began >= config.max_seconds
                    if (boundary or self.world.size == 1) and self.world.any(over or bool(self._signal)):
                        state.stop("interrupted" if self.world.any(bool(self._signal)) else "time")
                    if config.save_every and state.step % config.save_every == 0 and state.step < config.steps and not state.stop_reason:
                        checkpoint = self._checked_save(log, meter)
                if state.step and (checkpoint is None or checkpoint != self.output / "checkpoints" / f"step-{state.step:08d}"):
                    if meter.count:
                        scalars = self._log(log, meter)
                    checkpoint = self._checked_save(log, meter)
                if evaluated != state.step and not self._signal:
                    evaluation = self._run_evaluation(log)
            stopped = state.stop_reason or "steps"
            log.write("end", state.step, {"stopped": stopped})
            finished = True
        finally:
            log.close()
            self.world.close(wait=finished)
        if self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self._signal:
            raise SystemExit(128 + self._signal)
        return {
            "step": state.step,
            "stopped": stopped,
            "seconds": round(time.monotonic() - began, 3),
            "train": scalars,
            "evaluation": evaluation,
            "checkpoint": str(checkpoint),
            "output": str(self.output),
        }

    def _optimise(self) -> dict[str, Any]:
        config, state = self.config, self.state
        totals: dict[str, Any] = {}
        touched: set[str] = set()
        for state.micro in range(config.accumulate):
            batch = to_device(next(self.cursor), state.device)
            with torch.autocast(state.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                result = self._step(batch, state)
            touched |= self._backward(result)
            for key, value in result.items():
                value = value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))
                totals[key] = totals.get(key, 0.0) + value.float() / config.accumulate
        state.micro = 0
        for name in self.optimisers:
            if name in touched:
                norm = self._apply(name)
                if norm is not None:
                    totals["grad_norm" if len(self.optimisers) == 1 else f"grad_norm/{name}"] = norm
        if state.ema is not None:
            state.ema.update()
        return totals

    def _backward(self, result: Mapping[str, Any]) -> set[str]:
        losses: dict[str, Tensor] = {}
        for key, value in result.items():
            if key == "loss" and len(self.optimisers) == 1:
                losses[next(iter(self.optimisers))] = value
            elif key.startswith("loss/") and key[5:] in self.optimisers:
                losses[key[5:]] = value
        if not losses:
            wanted = "'loss'" if len(self.optimisers) == 1 else " or ".join(f"'loss/{name}'" for name in self.optimisers)
            raise TrainingError(f"the step function returned no loss: {sorted(result)}", fix=f"return {wanted}")
        for name, loss in losses.items():
            if self.sharded:  # FSDP must accumulate into its own gathered leaves
                torch.autograd.backward(loss / self.config.accumulate)
            else:
                mine = [p for group in self.optimisers[name].param_groups for p in group["params"] if p.requires_grad]
                torch.autograd.backward(loss / self.config.accumulate, inputs=mine)
        return set(losses)

    def _apply(self, name: str) -> Tensor | None:
        config, optimiser = self.config, self.optimisers[name]
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        if self.world.size > 1 and config.parallel == "replicate":
            average_gradients(self.world, [p for p in parameters if p.requires_grad])
        norm = None
        if config.clip_grad:
            norm = nn.utils.clip_grad_norm_(parameters, config.clip_grad)
            norm = full(norm) if self.world.size > 1 else norm
        scale = self._schedule(self.state.step, name)
        for group in optimiser.param_groups:
            group["lr"] = group["initial_lr"] * scale
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return norm

    # -- between the steps ---------------------------------------------------------------------------------------------------

    def _log(self, log: Log, meter: Meter) -> dict[str, float]:
        values = meter.take(self.world)
        bad = [key for key, value in values.items() if value != value or value in (float("inf"), float("-inf"))]
        rates = {f"lr/{name}" if len(self.optimisers) > 1 else "lr": o.param_groups[0]["lr"] for name, o in self.optimisers.items()}
        log.write("train", self.state.step, {**values, **rates})
        log.show(self.state.step, {**values, **rates})
        if bad:
            last = store.latest_checkpoint(self.output)
            raise TrainingError(
                f"training diverged: {', '.join(bad)} not finite at step {self.state.step}",
                tried=[f"the last checkpoint before it: {last or 'none'}"],
                fix="a smaller lr=, a longer warmup=, clip_grad=1, or precision=float32; then the same command goes on from that checkpoint",
            )
        return values

    def _checked_save(self, log: Log, meter: Meter) -> Path:
        if meter.count:
            meter.check(self.world, self.state.step)
        path = self.save()
        log.write("checkpoint", self.state.step, {"path": path.name})
        return path

    def _run_evaluation(self, log: Log) -> dict[str, Any]:
        if self._evaluate is None:
            return {}
        modes = [(part, part.training) for module in self.modules.values() for part in module.modules()]
        for module in self.modules.values():
            module.eval()
        try:
            with torch.no_grad(), isolated_rng(self.config.seed), self.state.ema_weights():
                kept = self.state.generator.get_state()
                self.state.generator.manual_seed(self.config.seed)
                values = {key: float(v) if isinstance(v, Tensor) and v.numel() == 1 else v for key, v in self._evaluate(self.state).items()}
                self.state.generator.set_state(kept)
        finally:
            for part, mode in modes:
                part.training = mode
        log.write("eval", self.state.step, values)
        numbers = "  ".join(f"{key} {value:.4g}" for key, value in values.items() if isinstance(value, (int, float)))
        log.say(f"step {self.state.step}  evaluation  {numbers}")
        return values

    @contextlib.contextmanager
    def _signals(self, log: Log) -> Iterator[None]:
        """First Ctrl-C or SIGTERM: finish the step and save; second: at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, _: Any) -> None:
            if self._signal:
                raise KeyboardInterrupt
            self._signal = number
            log.say("finishing this step and saving; once more to stop at once")

        previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
