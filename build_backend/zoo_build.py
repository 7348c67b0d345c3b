"""In-tree build backend: hatchling, except that a source distribution never records this checkout's paths.

See ``extras.py``: in a checkout the extras refer to the plugin folders by file URL; in a release they are version ranges.  ``python -m build`` and
``uv build`` make the source distribution first and the wheel from it, so both come out clean.  A wheel that is built *directly* from a checkout
(``--wheel``) holds file URLs; it is what ``pip install .`` uses and must never be published: ``scripts/check_dist.py`` refuses it.
"""

from __future__ import annotations

import os
from typing import Any

from hatchling.build import *  # noqa: F403
from hatchling.build import build_sdist as _build_sdist

RELEASE_SWITCH = "ZOO_RELEASE_BUILD"


def build_sdist(sdist_directory: str, config_settings: dict[str, Any] | None = None) -> str:
    """PEP 517 hook; see the module's text."""
    before = os.environ.get(RELEASE_SWITCH)
    os.environ[RELEASE_SWITCH] = "1"
    try:
        return _build_sdist(sdist_directory, config_settings)
    finally:
        if before is None:
            del os.environ[RELEASE_SWITCH]
        else:
            os.environ[RELEASE_SWITCH] = before
