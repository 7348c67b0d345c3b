"""The distribution: what pip sees."""

from __future__ import annotations

import re
import tomllib
from email.message import Message
from typing import cast

from zoo_core.testing.checks import check
from zoo_core.testing.results import Skipped
from zoo_core.testing.subject import Subject


@check("packaging.entry-point")
def entry_point(subject: Subject) -> None:
    """The entry point names a module of a top-level package (so that it can be found without an import)."""
    value = subject.entry_point.value
    assert re.fullmatch(r"[a-z_]\w*(\.[a-z_]\w*)+", value), (
        f"the entry point {subject.name!r} is {value!r}; write 'package.plugin', a module and nothing behind it"
    )
    module = subject.folder.joinpath(*value.split(".")[1:]).with_suffix(".py")
    assert module.is_file(), f"the entry point names {value!r}, but {module.name} is not in the package"


@check("packaging.typed")
def typed(subject: Subject) -> None:
    """The package has a ``py.typed`` marker."""
    assert (subject.folder / "py.typed").is_file(), f"{subject.package}/py.typed is missing (an empty file that says the package has type hints)"


@check("packaging.licence")
def licence(subject: Subject) -> None:
    """The distribution names its licence and carries the text."""
    metadata = cast("Message", subject.distribution.metadata)
    named = metadata.get("License-Expression") or metadata.get("License") or any("License ::" in line for line in metadata.get_all("Classifier") or ())
    assert named, 'the distribution names no licence (pyproject: license = "Apache-2.0")'
    in_source = subject.source is not None and any(subject.source.glob("LICEN[CS]E*"))
    assert metadata.get_all("License-File") or in_source, "the licence text is not part of the distribution (a LICENSE file beside pyproject.toml)"


@check("packaging.readme")
def readme(subject: Subject) -> None:
    """The distribution has a long description (its README, which is also the model card page)."""
    metadata = cast("Message", subject.distribution.metadata)
    body = metadata.get("Description") or metadata.get_payload()
    assert str(body or "").strip(), 'the long description is empty (pyproject: readme = "README.md")'


@check("packaging.requirements")
def requirements(subject: Subject) -> None:
    """It requires ``zoo-core`` within a range, and nothing by file or URL reference."""
    lines = subject.distribution.requires or []
    own = [line for line in lines if re.match(r"zoo[-_.]core\b", line, re.IGNORECASE)]
    assert own, "the distribution does not require zoo-core"
    assert re.search(r"[~=<]=?\s*\d", own[0]), f"{own[0]!r} has no upper end; write zoo-core~=X.Y.0"
    direct = [line for line in lines if " @ " in line or "@file:" in line]
    assert not direct, f"direct references cannot be published: {direct}"


@check("packaging.static")
def static(subject: Subject) -> None:
    """``pyproject.toml`` is static: plain data that every tool can read."""
    if subject.source is None:
        raise Skipped("installed from a wheel: there is no pyproject.toml to look at")
    data = tomllib.loads((subject.source / "pyproject.toml").read_text(encoding="utf-8"))
    dynamic = set(data.get("project", {}).get("dynamic", ())) - {"version"}
    assert not dynamic, f"pyproject.toml computes {sorted(dynamic)} at build time"
    assert "backend-path" not in data.get("build-system", {}), "pyproject.toml runs a build backend of its own"


@check("packaging.data", needs=("metadata.fragment",))
def data(subject: Subject) -> None:
    """Installed from a wheel, the registry files are among its files."""
    files = {str(file) for file in subject.distribution.files or ()}
    if subject.source is not None or not files:
        raise Skipped("installed from a source folder")
    missing = [name for name in ("registry.yaml", "registry.json") if f"{subject.package}/{name}" not in files]
    assert not missing, f"the wheel does not record {missing}"
