"""The Sana handle: task protocol ``TextToImage`` over transformer, text encoder, autoencoder and sampler."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo_core.errors import InputError
from zoo_core.interfaces import ImageResult, Model
from zoo_core.interfaces.model import ProgressCallback
from zoo_sana.captions import control_rows, rows_of, trim
from zoo_sana.guidance import Guidance
from zoo_sana.pictures import progress_bar, to_pil, to_tensor
from zoo_sana.sizes import check_size, nearest_bin, resize_and_crop
from zoo_sana.text import check_prompts, default_instruction
from zoo_sana.transformer import Caption, SanaTransformer

Chooser = Callable[[str, list[Any]], int]
"""``choose(prompt, pictures) -> index``: the verifier of best-of-n sampling."""


class Sana(Model):
    """Text to image.

    Example:
        >>> import zoo
        >>> sana = zoo.load("sana-emoji")                                   # doctest: +SKIP
        >>> sana.generate("a slice of pizza", seed=1).images[0].save("pizza.png")      # doctest: +SKIP
    """

    make_sampler: Callable[[], Any]
    make_text_encoder: Callable[[], Any]
    make_autoencoder: Callable[[], Any]
    offload_text_encoder: bool = False

    @property
    def transformer(self) -> SanaTransformer:
        return self.components["transformer"]

    @property
    def text_encoder(self) -> Any:
        """Loaded at its first use when the weights did not bring one."""
        if "text_encoder" not in self.components:
            self.components["text_encoder"] = self.make_text_encoder()
        return self.components["text_encoder"]

    @property
    def autoencoder(self) -> Any:
        """The autoencoder's handle (any model of the task ``image-autoencoder``)."""
        if "autoencoder" not in self.components:
            self.components["autoencoder"] = self.make_autoencoder()
        return self.components["autoencoder"]

    def compile(self, **options: Any) -> Sana:
        """``torch.compile`` the transformer in place."""
        self.transformer.compile(**options)
        return self

    # -- text ------------------------------------------------------------------------------------------------------------------

    def encode_text(self, prompts: Sequence[str], *, instruction: bool | Sequence[str] | str | None = None) -> tuple[Tensor, Tensor]:
        """Features [B, L, width] and mask [B, L] of prompts.

        Args:
            instruction: True or False, own lines, or None for the model's default.
        """
        use = self.config.instruction if instruction is None else instruction
        text = default_instruction() if use is True else "" if not use else use if isinstance(use, str) else "\n".join(use)
        if self.config.lowercase:
            prompts = [prompt.lower().strip() for prompt in prompts]
        encoder = self.text_encoder
        if self.offload_text_encoder:  # back from the CPU, where the last run left it
            encoder.to(self.device)
        return encoder.encode(prompts, text)

    # -- pictures ----------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        images_per_prompt: int = 1,
        seed: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        callback: ProgressCallback | None = None,
        progress: bool = False,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        pag_scale: float = 0.0,
        pag_blocks: Sequence[int] = (),
        instruction: bool | Sequence[str] | str | None = None,
        null_mask: str = "own",
        binning: bool | None = None,
        sampler: Any = None,
        sigmas: Sequence[float] | None = None,
        image: Any = None,
        strength: float = 0.6,
        control_image: Any = None,
        control_strength: float = 1.0,
        latents: Tensor | None = None,
        text: tuple[Tensor, Tensor] | None = None,
        best_of: int = 1,
        choose: Chooser | None = None,
        output: str = "pil",
        tiling: str = "auto",
        **unknown: Any,
    ) -> ImageResult:
        """Draw pictures.

        Args:
            prompt: One text or several.
            negative_prompt: Text (or one per prompt) of the unconditional branch; default empty.
            height, width: Pixels; default the model's trained size.
            steps, guidance: Default from the model's card.
            images_per_prompt: Pictures per prompt; picture i uses ``seed + i``.
            seed, generator: One or the other; a list of generators gives one per picture.
            callback: ``callback(step, total, {"latents": ...})`` after every network call; raising stops.
            progress: Show a bar.
            guidance_interval: Flow times in which guidance acts.
            pag_scale, pag_blocks: Perturbed-attention guidance.
            instruction: Complex human instruction on or off, or own lines (default: the model's).
            null_mask: ``"own"`` - the negative prompt has its own mask; ``"shared"`` - it uses the prompt's mask, as the reference code does.
            binning: Generate at the nearest trained aspect ratio, then resize and crop (default: on for models with a size table).
            sampler: Another sampler object (see :mod:`zoo_core.samplers`).
            sigmas: Own noise levels instead of ``steps``.
            image, strength: Start from a picture (PIL or tensor in [-1, 1]); ``strength`` 1 ignores it.
            control_image, control_strength: For models with a ControlNet.
            latents: Own start noise [B, C, h, w].
            text: Features and mask from :meth:`encode_text` instead of encoding ``prompt``.
            best_of, choose: Draw ``best_of`` candidates per picture and keep ``choose(prompt, candidates)``.
            output: ``"pil"``, ``"tensor"`` (pictures in [0, 1] in ``info["tensor"]``) or ``"latent"``.
            tiling: Passed to the autoencoder (``auto``, ``off``, ``window``, ``upstream``).

        Raises:
            InputError: Something above is not usable; the text names the legal values.
        """
        prompts = check_prompts(prompt)
        if unknown:
            import difflib

            name = next(iter(unknown))
            hint = difflib.get_close_matches(name, list(Sana.generate.__annotations__), 1)
            raise InputError(f"generate has no option {name!r}", fix=f"did you mean {hint[0]}?" if hint else "see help(model.generate)")
        if output not in ("pil", "tensor", "latent"):
            raise InputError(f"output={output!r}", fix="output='pil', 'tensor' or 'latent'")
        if null_mask not in ("own", "shared"):
            raise InputError(f"null_mask={null_mask!r}", fix="null_mask='own' or 'shared'")
        if seed is not None and generator is not None:
            raise InputError("seed and generator were both given", fix="give one of them")
        if images_per_prompt < 1 or best_of < 1:
            raise InputError(f"images_per_prompt={images_per_prompt}, best_of={best_of}", fix="whole numbers >= 1")
        if best_of > 1:
            from zoo_sana.selection import best_of_n

            common = {
                k: v for k, v in locals().items() if k not in ("self", "unknown", "best_of", "choose", "prompts", "prompt", "seed", "best_of_n", "name", "hint")
            }
            return best_of_n(self, prompts, best_of, choose, seed=seed, **common)
        defaults = self.card.get("defaults", {})
        steps = int(defaults.get("steps", 20) if steps is None else steps)
        rule = Guidance(
            float(defaults.get("guidance", 4.5) if guidance is None else guidance), tuple(guidance_interval), float(pag_scale), tuple(pag_blocks)
        ).check(len(self.transformer.blocks))
        seconds: dict[str, float] = {}
        clock = time.perf_counter()

        wanted, size = self._sizes(height, width, binning)
        embeds_guidance = self.transformer.config.guidance_embed
        captions, features = self._captions(prompts, negative_prompt, images_per_prompt, rule, instruction, null_mask, text, embeds_guidance)
        clock = self._lap(seconds, "text", clock)

        method = sampler if sampler is not None else self.make_sampler()
        start = strength if image is not None else None
        plan = method.plan(steps, device=self.device, start_at=start, **({"sigmas": sigmas} if sigmas is not None else {}))
        count = len(prompts) * images_per_prompt
        generators = self._generators(count, seed, generator)
        noise = self._noise(count, size, generators) if latents is None else latents.to(self.device, torch.float32)
        self._check_latents(noise, count, size)
        x = plan.start(noise)
        if image is not None:
            x = method.add_noise(self._encode_image(image, size, count), noise, plan.start_sigma)
        control = self._control(control_image, size, control_strength)
        x = self._denoise(x, plan, rule, captions, features, generators, control, callback, progress, embeds_guidance)
        clock = self._lap(seconds, "denoise", clock)

        info = {"steps": steps, "guidance": rule.scale, "height": wanted[0], "width": wanted[1], "generated_size": size, "sampler": type(method).__name__}
        if output == "latent":
            return ImageResult([], x, seed, seconds, info)
        pictures = self.decode(x, tiling=tiling, size=wanted)
        self._lap(seconds, "decode", clock)
        if output == "tensor":
            info["tensor"] = pictures
            return ImageResult([], x, seed, seconds, info)
        return ImageResult(to_pil(pictures), x, seed, seconds, info)

    @torch.no_grad()
    def decode(self, latents: Tensor, *, tiling: str = "auto", size: tuple[int, int] | None = None) -> Tensor:
        """Latents in the diffusion scale -> pictures [B, 3, H, W] in [0, 1], fp32; ``size`` resizes and crops (before values are clamped)."""
        autoencoder = self.autoencoder
        options = {} if tiling == "auto" else {"tiling": tiling}
        images = autoencoder.decode(latents / autoencoder.scaling_factor, **options).float()
        if size is not None:
            images = resize_and_crop(images, *size)
        return (images / 2 + 0.5).clamp_(0, 1)

    # -- steps of generate --------------------------------------------------------------------------------------------------------

    def _lap(self, seconds: dict[str, float], phase: str, since: float) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        seconds[phase] = now - since
        return now

    def _sizes(self, height: int | None, width: int | None, binning: bool | None) -> tuple[tuple[int, int], tuple[int, int]]:
        """(requested, generated) sizes in pixels."""
        ratio = self.autoencoder_ratio * self.transformer.config.patch_size
        trained = self.transformer.config.sample_size * ratio
        wanted = (height or (width and height) or trained, width or trained) if height or width else (trained, trained)
        use = bool(self.card.get("defaults", {}).get("binning", True)) if binning is None else binning
        size = nearest_bin(*wanted, self.transformer.config.sample_size) if use else wanted
        check_size(*size, ratio)
        if size != wanted and min(wanted) < 8:
            raise InputError(f"size {wanted[0]}x{wanted[1]} is too small", fix="height and width >= 8")
        return wanted, size

    @property
    def autoencoder_ratio(self) -> int:
        """Pixels per latent pixel, known from the card without loading the autoencoder."""
        loaded = self.components.get("autoencoder")
        return int(loaded.ratio if loaded is not None else self.card.get("ratio", self.card.get("defaults", {}).get("ratio", 32)))

    def _captions(
        self,
        prompts: list[str],
        negative: str | Sequence[str] | None,
        copies: int,
        rule: Guidance,
        instruction: Any,
        null_mask: str,
        text: tuple[Tensor, Tensor] | None,
        embeds_guidance: bool,
    ) -> tuple[dict[tuple[bool, bool], Caption], tuple[Tensor, Tensor]]:
        """Prepared captions for every combination of branches that the run can need (one projection, the others are views), and the stacked features."""
        features, mask = text if text is not None else self.encode_text(prompts, instruction=instruction)
        parts, masks = [features], [mask]
        with_null = rule.scale > 1 and not embeds_guidance
        with_pag = rule.pag_scale > 0 and not embeds_guidance
        if with_null:
            texts = [negative or ""] * len(prompts) if negative is None or isinstance(negative, str) else list(negative)
            if len(texts) != len(prompts):
                raise InputError(f"{len(texts)} negative prompts for {len(prompts)} prompts", fix="give one text, or one per prompt")
            null, own = self.encode_text(texts, instruction=False)
            parts, masks = [null, features], [mask if null_mask == "shared" else own, mask]
        if self.offload_text_encoder and "text_encoder" in self.components:
            self.components["text_encoder"].to("cpu")
        if with_pag:
            parts, masks = [*parts, features], [*masks, mask]
        parts, masks = trim(parts, masks)
        length = max(part.shape[1] for part in parts)
        parts = [torch.nn.functional.pad(part, (0, 0, 0, length - part.shape[1])) for part in parts]
        masks = [torch.nn.functional.pad(m, (0, length - m.shape[1])) for m in masks]
        stacked = torch.cat([part.repeat_interleave(copies, 0) for part in parts]).to(self.device)
        stacked_mask = torch.cat([m.repeat_interleave(copies, 0) for m in masks]).to(self.device)
        full = self.transformer.caption(stacked, stacked_mask)
        rows = len(prompts) * copies
        prepared = {(with_null, with_pag): full}
        if with_null:  # outside the guidance interval
            prepared[False, with_pag] = rows_of(full, rows, None)
        return prepared, (stacked, stacked_mask)

    def _generators(self, count: int, seed: int | None, generator: Any) -> list[torch.Generator] | None:
        if generator is not None:
            given = [generator] if isinstance(generator, torch.Generator) else list(generator)
            if len(given) not in (1, count):
                raise InputError(f"{len(given)} generators for {count} pictures", fix="give one, or one per picture")
            return given
        if seed is None:
            seed = int(torch.randint(0, 2**31 - 1, ()))
        return [torch.Generator().manual_seed(seed + i) for i in range(count)]

    def _noise(self, count: int, size: tuple[int, int], generators: list[torch.Generator] | None, like: Tensor | None = None) -> Tensor:
        channels = self.transformer.config.in_channels
        shape = (channels, *(side // self.autoencoder_ratio for side in size)) if like is None else tuple(like.shape[1:])
        if generators is None or len(generators) == 1:
            one = generators[0] if generators else None
            device = one.device if one is not None else "cpu"
            return torch.randn((count, *shape), generator=one, device=device).to(self.device)
        rows = [torch.randn(shape, generator=g, device=g.device) for g in generators]
        return torch.stack([row.to(self.device) for row in rows])

    def _check_latents(self, latents: Tensor, count: int, size: tuple[int, int]) -> None:
        wanted = (count, self.transformer.config.in_channels, *(side // self.autoencoder_ratio for side in size))
        if tuple(latents.shape) != wanted:
            raise InputError(
                f"latents have shape {tuple(latents.shape)}, this request needs {wanted}", fix="choose height, width, images_per_prompt and binning to fit"
            )

    def _encode_image(self, image: Any, size: tuple[int, int], count: int) -> Tensor:
        """A start picture as latents in the diffusion scale."""
        tensor = to_tensor(image) if not isinstance(image, Tensor) else image
        if tensor.ndim == 3:
            tensor = tensor[None]
        tensor = resize_and_crop(tensor.to(self.device, torch.float32), *size)
        latents = self.autoencoder.encode(tensor).float() * self.autoencoder.scaling_factor
        return latents if len(latents) == count else latents[:1].expand(count, -1, -1, -1)

    def _control(self, image: Any, size: tuple[int, int], strength: float) -> tuple[Tensor, float] | None:
        if image is None:
            return None
        if "controlnet" not in self.components:
            raise InputError(f"model {self.name!r} has no ControlNet", fix="load sana-1.6b-controlnet-hed, or leave control_image out")
        return self._encode_image(image, size, 1), float(strength)

    def _denoise(
        self,
        x: Tensor,
        plan: Any,
        rule: Guidance,
        captions: dict[tuple[bool, bool], Caption],
        features: tuple[Tensor, Tensor],
        generators: list[torch.Generator] | None,
        control: tuple[Tensor, float] | None,
        callback: ProgressCallback | None,
        progress: bool,
        embeds_guidance: bool,
    ) -> Tensor:
        """The loop; latents, guidance and sampler state are fp32, nothing in it waits for the device."""
        net = self.transformer
        rows = len(x)
        guidance = torch.full((1,), rule.scale * net.config.guidance_scale, device=x.device) if embeds_guidance else None
        scale = 1.0 if embeds_guidance else net.config.timestep_scale
        controlnet = self.components.get("controlnet") if control is not None else None
        control_captions = control_rows(controlnet, captions, features) if controlnet is not None else {}
        with progress_bar(plan.evaluations, progress) as tick:
            for i in range(plan.evaluations):
                sigma = plan.sigmas[i] if hasattr(plan, "sigmas") else 1.0
                null, pag = (False, False) if embeds_guidance else rule.branches(sigma)
                copies = 1 + null + pag
                inputs = plan.model_input(x, i)
                batch = inputs.repeat(copies, 1, 1, 1) if copies > 1 else inputs
                times = (plan.model_time(i) * scale).reshape(1)
                caption = captions[null, pag]
                residuals = None
                if controlnet is not None and control is not None:
                    residuals = controlnet.residuals(batch, control_captions[null, pag], times, control[0].expand(len(batch), -1, -1, -1), strength=control[1])
                out = net(batch, caption, times, guidance=guidance, perturbed=rows if pag else 0, perturbed_blocks=rule.pag_blocks, control=residuals)
                velocity = rule.combine(out, null, pag)
                noise = self._noise(rows, (0, 0), generators, like=x) if plan.needs_noise(i) else None
                x = plan.advance(x, velocity, i, noise)
                if callback is not None:
                    callback(i + 1, plan.evaluations, {"latents": x})
                tick()
        return plan.finish(x)
