"""The command ``zoo``.

Exit codes: 0 done, 1 a check failed, 2 the user can repair it, 130 interrupted.  An error of the zoo prints no traceback (``ZOO_DEBUG=1`` shows it).

Importing typer costs about 170 ms here, which alone is more than ``zoo list`` may take as a whole process (150 ms).  Therefore ``list``, ``info``,
``search``, ``plugins``, ``--version`` and completion are dispatched by :mod:`zoo_core.cli.fast` when their arguments are plain; anything else, also a
mistake in them, goes to typer, whose commands call the same functions.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        from zoo_core.errors import ZooError

        if not isinstance(error, ZooError) or os.environ.get("ZOO_DEBUG") not in (None, "", "0"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _dispatch(arguments: list[str]) -> int:
    from zoo_core.cli import fast

    code = fast.run(arguments)
    if code is not None:
        return code
    from zoo_core.cli import app

    return app.run(arguments)
