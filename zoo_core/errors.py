"""Exceptions of the zoo.

Every error a user can cause or repair is a :class:`ZooError`.  Its text has one shape: the first line says *what* failed on
*which* object, then what was *tried*, then the one command or argument that *fixes* it.  The parts stay available as fields, so
that a program need not parse the text.

Example:
    >>> error = ZooError("model 'sanna' is unknown", tried=["catalogue: 51 models"], fix="zoo list")
    >>> print(error)
    model 'sanna' is unknown
      tried: catalogue: 51 models
      fix: zoo list
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class ZooError(Exception):
    """Base of all errors that the zoo raises on purpose.

    Args:
        what: One line: what failed, on which object.
        tried: What was attempted or looked at, one entry per line.
        fix: The one command or argument that repairs it.
        fields: Machine-readable details, also reachable as ``error.fields``.
    """

    exit_code = 2

    def __init__(self, what: str, *, tried: Iterable[str] = (), fix: str | None = None, **fields: Any) -> None:
        self.what = what
        self.tried = tuple(tried)
        self.fix = fix
        self.fields = fields
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        lines += [f"  tried: {line}" for line in self.tried]
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.what, self.tried, self.fix, self.fields)


def _rebuild(cls: type[ZooError], what: str, tried: tuple[str, ...], fix: str | None, fields: dict[str, Any]) -> ZooError:
    return cls(what, tried=tried, fix=fix, **fields)


# -- names, plugins, catalogue -----------------------------------------------------------------------------------------------


class UnknownNameError(ZooError, LookupError):
    """A name is in no registry; carries ``suggestions``."""


class UnknownModelError(UnknownNameError):
    """A model name is in no catalogue."""


class PluginNotInstalledError(ZooError):
    """The catalogue knows the thing, but the plugin that owns it is not installed; ``fix`` holds the install command."""


class PluginError(ZooError):
    """Base of errors about one plugin; ``fields['plugin']`` names it."""


class PluginLoadError(PluginError):
    """A plugin raised while it was imported or registered; its registration was rolled back."""


class PluginConflictError(PluginError):
    """Two distributions claim one name."""


class IncompatiblePluginError(PluginError):
    """A plugin was made for another plugin API version."""


class PluginBlockedError(PluginError):
    """A plugin is installed but switched off by the user."""


class MissingDependencyError(ZooError, ImportError):
    """A third-party package that this thing needs is absent or too old."""


class SpecError(PluginError, ValueError):
    """A spec or registry fragment is not valid; names plugin, field and fix."""


class NameSyntaxError(ZooError, ValueError):
    """A name does not follow ``name[@variant][#revision]`` or is not safe."""


class ConfigError(ZooError, ValueError):
    """A configuration key is unknown, ill-typed or out of range."""


# -- weights -----------------------------------------------------------------------------------------------------------------


class WeightsError(ZooError):
    """Base of errors about weight files."""


class OfflineError(WeightsError):
    """A file is needed, is not on this machine, and the network may not be used."""


class DownloadError(WeightsError):
    """A download failed for good after bounded retries."""


class ChecksumError(WeightsError):
    """A file does not have the expected SHA-256; it was quarantined."""


class NoSpaceError(WeightsError, OSError):
    """There is not enough room on the disk."""


class CacheAccessError(WeightsError, OSError):
    """The cache folder cannot be read or written."""


class UnsafePathError(WeightsError, ValueError):
    """A file, tensor or archive member name would leave its folder."""


class UnsafeFileError(WeightsError):
    """A file would run code when opened, or is not what its name says."""


class CheckpointError(WeightsError):
    """A checkpoint file is damaged, foreign or of an unknown layout."""


class CheckpointMismatchError(CheckpointError):
    """Keys or shapes of a checkpoint do not fit the model; ``fields['report']`` holds the whole comparison."""


# -- running -----------------------------------------------------------------------------------------------------------------


class InputError(ZooError, ValueError):
    """An argument given by the user is not usable (shape, dtype, range, empty text, missing file...)."""


class DeviceError(ZooError, RuntimeError):
    """This machine lacks the requested device or number format."""


class NotEnoughMemoryError(DeviceError):
    """The model does not fit; the text says what would."""


class KernelError(ZooError, RuntimeError):
    """A kernel was forced but cannot run here."""


class ParityError(ZooError):
    """A recorded case is unusable (unknown kind, files missing)."""


class EvaluationError(ZooError):
    """An evaluation cannot start or go on."""


class TrainingError(ZooError):
    """A training run cannot start or go on."""
