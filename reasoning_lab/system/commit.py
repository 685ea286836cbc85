"""The commit of the lab's own code, so that a number is traced to what made it."""

import subprocess
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_TIMEOUT_S = 10


@cache
def code_commit() -> str | None:
    """The commit of the checkout from which the lab runs, 12 hex digits.

    `with changes` follows where files of the package differ from it. None = the lab was installed
    without its repository, or git cannot be asked.
    """
    try:
        # An installation may lie in another repository, of which it is no part.
        _git("ls-files", "--error-unmatch", "__init__.py")
        commit = _git("rev-parse", "--short=12", "HEAD")
        changes = _git("status", "--porcelain", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit} with changes" if changes else commit


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=_PACKAGE,
        capture_output=True,
        text=True,
        check=True,
        timeout=_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout.strip()
