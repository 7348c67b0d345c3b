"""Numeric operations that plugins bring: their ``register`` targets are called with :data:`zoo_kernels.registry.registry`, once per process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo_core.errors import PluginLoadError, ZooError

if TYPE_CHECKING:
    from zoo_core.interfaces.weights import LoadReport
    from zoo_core.registry import ZooRegistry


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
            _register(registry, name)
        except ZooError as error:
            if report is None or error.fields.get("plugin") == plugin:
                raise
            report.warnings.append(f"kernels {name!r} are missing: {error.what}")


def _register(registry: ZooRegistry, name: str) -> None:
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
