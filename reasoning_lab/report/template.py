"""What pages are made of: the files in `assets/`, and the policy under which only they run."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files

_ASSETS = files("reasoning_lab.report") / "assets"


def asset(name: str) -> str:
    """The text of a file in `assets/`."""
    return (_ASSETS / name).read_text(encoding="utf-8")


def fill(template: str, parts: Mapping[str, str]) -> str:
    """The file `template` of `assets/`, with each `$name` replaced by that part."""
    return re.sub(r"\$([a-z]+)", lambda match: parts[match[1]], asset(template))


def content_security_policy(scripts: Sequence[str], *directives: str) -> str:
    """A policy under which only these scripts run and nothing else is requested.

    `directives` allow more, such as `connect-src 'self'`.
    """
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    ]
    allowed = ["style-src 'unsafe-inline'", f"script-src {' '.join(hashes)}", *directives]
    return "; ".join(["default-src 'none'", *allowed])
