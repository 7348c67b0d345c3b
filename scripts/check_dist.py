"""Refuse distributions whose metadata refer to folders of the machine that built them: ``python scripts/check_dist.py dist/*``.

A wheel of the root built straight from a checkout (``python -m build --wheel``) holds such references; ``python -m build`` and ``uv build`` go through the
source distribution and do not.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path


def metadata(path: Path) -> str:
    """Core metadata of a wheel or source distribution."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return wheel.read(next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))).decode()
    with tarfile.open(path) as sdist:
        member = next(member for member in sdist.getmembers() if member.name.count("/") == 1 and member.name.endswith("/PKG-INFO"))
        file = sdist.extractfile(member)
        assert file is not None
        return file.read().decode()


def main(paths: list[str]) -> int:
    """Exit status: 0 when all are clean, 1 when one is not, 2 without arguments."""
    if not paths:
        print("usage: python scripts/check_dist.py dist/*", file=sys.stderr)
        return 2
    bad = 0
    for path in map(Path, paths):
        for line in metadata(path).partition("\n\n")[0].splitlines():
            if line.startswith("Requires-Dist:") and " @ " in line:
                print(f"{path.name}: {line}", file=sys.stderr)
                bad += 1
    if bad:
        print("not publishable: build with `python -m build` or `uv build`, not with --wheel from a checkout", file=sys.stderr)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
