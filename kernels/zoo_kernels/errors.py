"""Errors of the kernels package (it depends on nothing of the zoo)."""

from __future__ import annotations


class KernelError(RuntimeError):
    """A kernel was asked for that does not exist or cannot run here; ``reasons`` maps implementation -> why not."""

    def __init__(self, what: str, *, reasons: dict[str, list[str]] | None = None, fix: str | None = None) -> None:
        self.what, self.reasons, self.fix = what, reasons or {}, fix
        lines = [what, *(f"  tried: {name}: {'; '.join(why)}" for name, why in self.reasons.items())]
        if fix:
            lines.append(f"  fix: {fix}")
        super().__init__("\n".join(lines))
