"""``zoo.load``: name -> card -> configuration -> dependencies -> files -> module -> handle; every step timed into a ``LoadReport``."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core.errors import CheckpointError, InputError, KernelError, NotEnoughMemoryError, PluginLoadError, SpecError, WeightsError, ZooError
from zoo_core.interfaces.weights import BuildRequest, LoadReport
from zoo_core.names import Reference, parse
from zoo_core.registry import ZooRegistry, get_registry

if TYPE_CHECKING:
    import torch

    from zoo_core.config import Overrides
    from zoo_core.interfaces.model import Model
    from zoo_core.specs import ModelSpec, WeightsSpec


def load(
    name: str | os.PathLike[str],
    *,
    device: Any = "auto",
    dtype: Any = None,
    weights: str | os.PathLike[str] | None = None,
    seed: int = 0,
    revision: str | None = None,
    cache: Any = None,
    quant: Any = None,
    adapter: Any = None,
    kernels: Mapping[str, str] | str | None = None,
    compile: bool | Mapping[str, Any] = False,
    offline: bool | None = None,
    overrides: Overrides = None,
    config_file: str | Path | None = None,
    progress: Any = None,
    **options: Any,
) -> Model:
    """Load a model and return its handle.

    Args:
        name: ``name[@variant][#revision]``, ``hf://org/repo[@revision]``, a folder of published files, or a ``.zoo`` bundle.
        device: ``"auto"`` (first accelerator, else CPU), ``"cpu"``, ``"cuda:1"``...; ``"meta"`` with ``weights="random"`` gives shapes without values.
        dtype: One for all components or ``{"transformer": "bfloat16"}``; default: the published precision.
        weights: Instead of the catalogue's: a file or folder, ``hf://...``, ``pypi://...``, or ``"random"`` (seeded by ``seed``; downloads nothing).
        revision: Commit, branch or tag of the published repository.
        cache, quant, adapter: Parts by name, for plugins that compose them.
        kernels: ``{"linear_attention": "reference"}`` or ``"linear_attention=reference"``.
        compile: ``torch.compile`` the main network; a mapping gives its options.
        offline: Never use the network (default: ``ZOO_OFFLINE``).
        overrides: Configuration changes, ``["depth=3"]`` or ``{"depth": 3}``.
        config_file: YAML or JSON file with configuration changes, below ``overrides``.
        progress: See :class:`zoo_core.hub.Progress`.
        options: For the plugin's builder, which refuses what it does not know.

    Raises:
        UnknownModelError, PluginNotInstalledError, PluginLoadError, MissingDependencyError, ConfigError, DeviceError, WeightsError: All are
        :class:`~zoo_core.errors.ZooError`; nothing is downloaded before name, plugin, configuration, dependencies, device and dtype are known to be good.

    Example:
        >>> import zoo
        >>> model = zoo.load("sana-emoji")  # doctest: +SKIP
        >>> model.generate("a slice of pizza", seed=0).images[0].save("pizza.png")  # doctest: +SKIP
    """
    start = time.perf_counter()
    text = os.fspath(name)
    registry = get_registry()
    report = LoadReport()
    choices = {"cache": cache, "quant": quant, "adapter": adapter, "kernels": kernel_choices(kernels)}
    given = {key: value for key, value in choices.items() if value is not None}
    with timed(report, "resolve name"):
        ref, found = recognise(parse(text) if isinstance(name, str) else Reference("path", text), registry, offline)
        if weights is None and found is not None:
            weights = found
        if revision is not None and ref.revision not in (None, revision):
            raise InputError(f"two revisions are given: {ref.revision!r} in the name and revision={revision!r}", fix="give one of them")
        revision = revision or ref.revision
        spec = registry.model(ref)
    report.name = spec.name + (f"@{ref.variant}" if ref.variant else "")
    with timed(report, "plugin"):
        plugin = registry.plugin(spec.card["plugin"])
        _dependencies(plugin, spec)
        registry.activate(plugin.name)
        layouts: dict[str, WeightsSpec] = {layout: registry.get("weights", layout) for layout in spec.layouts}  # type: ignore[misc]
    with timed(report, "config"):
        from zoo_core.config import build_config, read_file

        file = read_file(config_file) if config_file is not None else None
        config = build_config(spec.config_class, dict(spec.config), file, overrides, name=f"model {spec.name!r}")
    with timed(report, "import"):
        import torch

        from zoo_core.devices import check_dtype, resolve_device, resolve_dtypes

        empty = str(device) == "meta" and weights == "random"  # shapes without values: to count and compare, for the conformance kit
        target = torch.device("meta") if empty else resolve_device(device)
        dtypes = resolve_dtypes(dtype, target)
        if not dtypes:
            _check_native(spec, target, check_dtype)
        build = import_target(spec.build, plugin.name)
        register_operations(registry, plugin=plugin.name, report=report)
    with timed(report, "files"):
        from zoo_core.hub import resolve_weights

        files = resolve_weights(
            spec,
            weights=os.fspath(weights) if weights is not None else None,
            revision=revision,
            offline=offline,
            layouts=layouts,
            seed=seed,
            progress=progress,
            report=report,
        )
    request = BuildRequest(spec, config, files, target, dtypes, {**given, **options}, report, registry)
    with timed(report, "build"), explain_memory(spec, dtypes, target), _kernel_errors():
        model = build(request)
        _check_built(model, spec, filled=not empty)
    if model.report is None:
        model.report = report
    if compile:
        with timed(report, "compile"):
            model.compile(**(dict(compile) if isinstance(compile, Mapping) else {}))
    report.bytes["parameters"] = sum(p.numel() * p.element_size() for _, module in model.modules() for p in module.parameters())
    report.seconds["total"] = time.perf_counter() - start
    model.load_arguments = _arguments(
        name=str(Path(text).absolute()) if ref.kind == "path" and not isinstance(name, str) else text, device=device, dtype=dtype, weights=weights, seed=seed,
        revision=revision, compile=compile, offline=offline, overrides=overrides, config_file=config_file, **given, **options,
    )  # fmt: skip
    _after(registry, model, report, dict(request.options))
    return model


DEFAULTS: dict[str, Any] = {"device": "auto", "dtype": None, "weights": None, "seed": 0, "revision": None, "compile": False, "offline": None, "overrides": None,
                            "config_file": None}  # fmt: skip


def _arguments(**arguments: Any) -> dict[str, Any]:
    """What unpickling passes to ``load`` again: everything that differs from the defaults; paths made absolute."""
    kept = {key: value for key, value in arguments.items() if key not in DEFAULTS or value != DEFAULTS[key]}
    weights = kept.get("weights")
    if weights is not None:
        text = os.fspath(weights)
        kept["weights"] = os.path.abspath(os.path.expanduser(text)) if os.path.exists(os.path.expanduser(text)) else text
    if kept.get("overrides") is not None and not isinstance(kept["overrides"], (str, Mapping)):
        kept["overrides"] = list(kept["overrides"])
    return kept


@contextlib.contextmanager
def timed(report: LoadReport, step: str) -> Iterator[None]:
    """Add the wall time of a step to the report."""
    begin = time.perf_counter()
    try:
        yield
    finally:
        report.seconds[step] = report.seconds.get(step, 0.0) + time.perf_counter() - begin


@contextlib.contextmanager
def _kernel_errors() -> Iterator[None]:
    """An error of the kernels package (which knows nothing of the core) as an error of the zoo."""
    try:
        yield
    except RuntimeError as error:
        if type(error).__module__ != "zoo_kernels.errors":
            raise
        reasons: Mapping[str, list[str]] = getattr(error, "reasons", {})
        what, fix = str(getattr(error, "what", error)), getattr(error, "fix", None)
        raise KernelError(what, tried=[f"{name}: {'; '.join(why)}" for name, why in reasons.items()], fix=fix) from error


def register_operations(registry: ZooRegistry, *, plugin: str | None = None, report: LoadReport | None = None) -> None:
    """Register the operations and implementations of all installed plugins; without any, nothing is imported.

    Args:
        plugin: The plugin of the model that is being loaded: its mistakes are errors.
        report: Where mistakes of other plugins are noted (their kernels are then missing); None: they are errors too.

    Raises:
        PluginLoadError: A ``register`` target cannot be imported or raises.
    """
    for name in registry.names("kernels"):
        try:
            _register_operations(registry, name)
        except ZooError as error:
            if report is None or error.fields.get("plugin") == plugin:
                raise
            report.warnings.append(f"kernels {name!r} are missing: {error.what}")


def _register_operations(registry: ZooRegistry, name: str) -> None:
    from zoo_core.manager import last_line
    from zoo_core.specs import KernelSpec

    spec = registry.get("kernels", name)
    assert isinstance(spec, KernelSpec)
    owner = next((plugin.name for plugin in registry.plugins().values() if name in plugin.fragment.get("provides", {}).get("kernels", ())), "")
    try:
        from zoo_kernels.registry import registry as operations

        operations.register_from(spec.register)
    except (Exception, SystemExit) as error:
        raise PluginLoadError(
            f"plugin {owner!r}: its kernels {name!r} ({spec.register}) could not be registered: {last_line(error)}", fix="zoo doctor", plugin=owner
        ) from error


def kernel_choices(kernels: Mapping[str, str] | str | None) -> dict[str, str] | None:
    """``"a=x,b=y"`` or a mapping -> mapping; the form is that of ``ZOO_KERNELS``."""
    if kernels is None:
        return None
    if isinstance(kernels, Mapping):
        return dict(kernels)
    pairs = [item.partition("=") for item in kernels.split(",") if item.strip()]
    if not all(op.strip() and equals and choice.strip() for op, equals, choice in pairs):
        raise InputError(f"kernels={kernels!r} is not of the form op=implementation,...", fix="for example kernels='linear_attention=reference'")
    return {op.strip(): choice.strip() for op, _, choice in pairs}


def import_target(target: str, plugin: str) -> Any:
    """Import what a plugin's target names; any exception becomes PluginLoadError from the original."""
    from zoo_core.specs import resolve

    try:
        return resolve(target)
    except ZooError:
        raise
    except (Exception, SystemExit) as error:
        from zoo_core.manager import last_line

        raise PluginLoadError(f"plugin {plugin!r}: {target} could not be imported: {last_line(error)}", fix="zoo doctor", plugin=plugin) from error


def _dependencies(plugin: Any, spec: ModelSpec) -> None:
    from zoo_core.discovery import check_requirements

    check_requirements(plugin, dict(spec.card))


def _check_native(spec: ModelSpec, device: torch.device, check: Any) -> None:
    """The published precision must be usable here too (an old GPU has no bfloat16)."""
    from zoo_core.devices import dtype_of

    for name in (spec.card.get("precision") or {}).values():
        with contextlib.suppress(InputError):  # storage formats such as int4 are the builder's business
            check(dtype_of(name), device)


def _check_built(model: Any, spec: ModelSpec, filled: bool = True) -> None:
    """The builder's result is a handle and nothing was left on the meta device."""
    from zoo_core.interfaces.model import Model

    if not isinstance(model, Model):
        raise SpecError(
            f"the builder {spec.build} of {spec.name!r} returned {type(model).__name__}", fix="return a zoo_core.interfaces.Model", plugin=spec.card["plugin"]
        )
    left = [
        f"{part}.{key}"
        for part, module in model.modules()
        for key, tensor in [*module.named_parameters(), *module.named_buffers()]
        if tensor.device.type == "meta"
    ]
    if left and filled:
        raise CheckpointError(
            f"model {spec.name!r}: {len(left)} tensors were left without values (on the meta device)",
            tried=[f"{name}" for name in left[:8]] + (["..."] if len(left) > 8 else []),
            fix="report it to the plugin's author: a builder fills every parameter and buffer",
            tensors=left,
        )


@contextlib.contextmanager
def explain_memory(spec: ModelSpec, dtypes: Mapping[str, Any], device: torch.device) -> Iterator[None]:
    """Turn running out of memory into NotEnoughMemoryError with the card's estimate and what would help."""
    import torch

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        text = str(error)
        if (
            isinstance(error, RuntimeError)
            and not isinstance(error, torch.OutOfMemoryError)
            and "can't allocate memory" not in text
            and "not enough memory" not in text
        ):
            raise
        from zoo_core.devices import advice, estimate

        wanted = estimate(spec.card, dtype=str(next(iter(dtypes.values()), "")).removeprefix("torch.") or None)
        raise NotEnoughMemoryError(
            f"model {spec.name!r} does not fit on {device}",
            tried=[text.strip().splitlines()[0] if text.strip() else type(error).__name__, f"estimate: {wanted.total_bytes / 1e9:.1f} GB"],
            fix=advice(spec.card, wanted),
        ) from error


def _after(registry: ZooRegistry, model: Model, report: LoadReport, options: dict[str, Any]) -> None:
    for implementation in registry.manager.pluggy.hook.zoo_post_load.get_hookimpls():
        values = {"model": model, "report": report, "options": options}
        try:
            implementation.function(*[values[name] for name in implementation.argnames])
        except Exception as error:
            report.warnings.append(f"plugin {implementation.plugin_name!r}: its zoo_post_load hook raised {type(error).__name__}: {error}")


def recognise(ref: Reference, registry: ZooRegistry, offline: bool | None = None) -> tuple[Reference, str | None]:
    """For a path, bundle or repository: the model that builds it, and the weights to pass on."""
    if ref.kind == "name":
        return ref, None
    from zoo_core import recognition

    if ref.kind == "hf":
        return recognition.from_hub(ref, registry, offline)
    path = os.path.expanduser(ref.name)
    if not os.path.exists(path):
        raise WeightsError(f"{ref.name!r} is not on this machine", fix="give an existing folder or bundle, or a name that `zoo list` shows")
    model = recognition.bundle(path) if ref.kind == "bundle" else recognition.folder(path, registry)
    return Reference("name", model), os.path.abspath(path)


@contextlib.contextmanager
def quiet_bars() -> Iterator[None]:
    """For builders that load by transformers: none of its own loading bars inside (``zoo.load`` says what it does); the setting is put back."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
