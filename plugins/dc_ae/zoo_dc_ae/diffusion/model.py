"""The class-to-image handle: a diffusion network on the latents of an autoencoder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from zoo_core.errors import ConfigError, InputError
from zoo_core.interfaces.model import ImageResult, Model, ProgressCallback
from zoo_core.interfaces.sampler import Sampler
from zoo_core.samplers.ddpm import DDPM
from zoo_core.samplers.dpm_solver_singlestep import DPMSolverSinglestep
from zoo_core.samplers.ode import ODESampler
from zoo_dc_ae.diffusion.config import DiffusionConfig
from zoo_dc_ae.diffusion.layers import guided
from zoo_dc_ae.images import to_pictures

if TYPE_CHECKING:
    from zoo_core.interfaces.weights import LoadReport
    from zoo_core.specs import ModelSpec
    from zoo_dc_ae.autoencoder import DCAE

SAMPLERS = ("auto", "dpm-solver", "ddpm", "dopri5", "euler", "heun", "midpoint", "rk4")


def make_sampler(config: DiffusionConfig, name: str = "auto") -> Sampler:
    """The sampler of a model.

    ``"auto"`` is the published one: DPM-Solver-fast of order 3 for U-ViT, adaptive Dormand-Prince for USiT, respaced DDPM with learned variance for DiT.

    Raises:
        ConfigError: Unknown, or made for the other objective.
    """
    if name == "auto":
        name = "ddpm" if config.network == "dit" else ("dopri5" if config.objective == "flow" else "dpm-solver")
    if name not in SAMPLERS:
        raise ConfigError(f"sampler {name!r} is unknown", fix=f"choose from {', '.join(SAMPLERS)}")
    flow = name not in ("dpm-solver", "ddpm")
    if flow != (config.objective == "flow"):
        raise ConfigError(f"sampler {name!r} does not fit the objective {config.objective!r}", fix="leave the sampler out")
    if flow:
        return ODESampler(name)
    if name == "ddpm":
        return DDPM(variance="learned-range" if config.network == "dit" and config.learn_sigma else "fixed-large")
    if config.network == "dit" and config.learn_sigma:
        raise ConfigError("dpm-solver does not use a learned variance", fix="sampler='ddpm'")
    return DPMSolverSinglestep()


class LatentDiffusion(Model):
    """Class indices in, pictures out (task protocol ``ClassToImage``)."""

    def __init__(self, spec: ModelSpec, config: DiffusionConfig, network: torch.nn.Module, autoencoder: DCAE | None, report: LoadReport | None = None) -> None:
        components: dict[str, Any] = {"diffusion_model": network}
        if autoencoder is not None:
            components["autoencoder"] = autoencoder
        super().__init__(spec, config, components, report)

    @property
    def network(self) -> torch.nn.Module:
        """The denoiser."""
        return self.components["diffusion_model"]

    @torch.no_grad()
    def predict(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor, guidance: float = 1.0) -> torch.Tensor:
        """One guided network evaluation: ``x`` [B, C, n, n], ``t`` [B], ``labels`` [B] -> [B, C or 2C, n, n]."""
        config: DiffusionConfig = self.config
        return guided(self.network, x, t, labels, config.null_class, guidance, config.in_channels)

    @torch.no_grad()
    def sample(
        self,
        labels: torch.Tensor,
        *,
        steps: int | None = None,
        guidance: float = 1.0,
        noise: torch.Tensor | None = None,
        generators: Sequence[torch.Generator] | None = None,
        sampler: str | Sampler = "auto",
        callback: ProgressCallback | None = None,
        progress: bool = False,
    ) -> torch.Tensor:
        """Latents [B, C, n, n] in the diffusion model's scale (before dividing by the scaling factor).

        Args:
            labels: int64 [B]; ``num_classes`` stands for "no class".
            steps: Network evaluations (``dopri5`` chooses its own).
            guidance: 1 switches guidance off.
            noise: Start noise; drawn from ``generators`` (one per picture, on the CPU) when None.
            sampler: A name of :data:`SAMPLERS` or a sampler.
        """
        config: DiffusionConfig = self.config
        steps = steps or int(self.card.get("defaults", {}).get("steps", 30))
        chosen = make_sampler(config, sampler) if isinstance(sampler, str) else sampler
        device, dtype = self.device, self.dtype
        labels = labels.to(device)
        shape = (config.in_channels, config.input_size, config.input_size)

        def draw() -> torch.Tensor:
            if generators is None:
                return torch.randn((len(labels), *shape)).to(device)
            return torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(device)

        plan = chosen.plan(steps, device=device)
        x = plan.start(draw() if noise is None else noise.to(device=device, dtype=torch.float32))
        bar = _bar(plan.evaluations, progress)
        for i in range(plan.evaluations):
            t = plan.model_time(i).expand(len(labels))
            output = self.predict(plan.model_input(x, i).to(dtype), t, labels, guidance).float()
            x = plan.advance(x, output, i, noise=draw() if plan.needs_noise(i) else None)
            if callback is not None:
                callback(i + 1, plan.evaluations, {"x": x})
            if bar is not None:
                bar.advance()
            if getattr(plan, "finished", False):
                break
        if bar is not None:
            bar.close()
        return plan.finish(x)

    def generate(
        self,
        labels: int | Sequence[int],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        callback: ProgressCallback | None = None,
        progress: bool = False,
        sampler: str | Sampler = "auto",
        return_latents: bool = False,
        **unknown: Any,
    ) -> ImageResult:
        """Pictures of the given classes.

        Args:
            labels: Class indices 0 .. ``num_classes`` - 1, one or several.
            steps, guidance: Default: those of the card.
            seed: Picture ``i`` uses ``seed + i``, whatever the batch; excludes ``generator``.
            generator: A CPU generator used for all pictures in turn.
            sampler: See :func:`make_sampler`.
            return_latents: Put the final latents in the result.

        Raises:
            InputError: Label out of range, both ``seed`` and ``generator``, no autoencoder to decode with, unknown option.
        """
        if unknown:
            raise InputError(f"generate() does not know the option {next(iter(unknown))!r}", fix="see help(LatentDiffusion.generate)")
        items = self._labels(labels)
        if seed is not None and generator is not None:
            raise InputError("seed and generator exclude each other", fix="give one of them")
        if "autoencoder" not in self.components:
            raise InputError(f"{self.name} was loaded without an autoencoder", fix="zoo.load(..., autoencoder='dc-ae-f32c32-in-1.0'), or use sample()")
        if steps is not None and steps < 1:
            raise InputError(f"steps={steps}", fix="give at least 1")
        scale = float(self.card.get("defaults", {}).get("guidance", 1.0) if guidance is None else guidance)
        if generator is None:
            first = int(torch.seed() % 2**31) if seed is None else seed
            generators = [torch.Generator().manual_seed(first + i) for i in range(len(items))]
        else:
            first, generators = None, [generator] * len(items)  # type: ignore[assignment]
        started = time.perf_counter()
        latents = self.sample(torch.tensor(items), steps=steps, guidance=scale, generators=generators, sampler=sampler, callback=callback, progress=progress)
        sampled = time.perf_counter()
        config: DiffusionConfig = self.config
        autoencoder = self.components["autoencoder"]
        dtype = next(autoencoder.parameters()).dtype
        with torch.no_grad():
            images = to_pictures(autoencoder.decode((latents / config.autoencoder.scaling_factor).to(dtype)))
        seconds = {"denoise": sampled - started, "decode": time.perf_counter() - sampled}
        info: Mapping[str, Any] = {"labels": items, "guidance": scale, "steps": steps or self.card.get("defaults", {}).get("steps")}
        return ImageResult(images=images, latents=latents if return_latents else None, seed=first, seconds=seconds, info=dict(info))

    def _labels(self, labels: int | Sequence[int]) -> list[int]:
        items = [labels] if isinstance(labels, int) else list(labels)
        count = self.config.num_classes
        if not items:
            raise InputError("generate() got no label", fix="give at least one class index")
        for item in items:
            if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item < count:
                raise InputError(f"label {item!r} is not a class of {self.name}", fix=f"give whole numbers from 0 to {count - 1}")
        return items


class _Bar:
    """A progress bar on the terminal."""

    def __init__(self, total: int) -> None:
        from rich.progress import Progress

        self._progress = Progress()
        self._progress.start()
        self._task = self._progress.add_task("sampling", total=total)

    def advance(self) -> None:
        self._progress.advance(self._task)

    def close(self) -> None:
        self._progress.stop()


def _bar(total: int, wanted: bool) -> _Bar | None:
    return _Bar(total) if wanted else None
