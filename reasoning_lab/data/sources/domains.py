"""Names of domains: they are keys of metrics, and rows of untrusted data may give them."""

import re

from reasoning_lab.data.sources.row_values import RowError, short_repr
from reasoning_lab.types import UserError

_NAME = re.compile(r"\w[\w .&+-]{0,39}")
_FORM = "up to 40 letters, digits, spaces and any of _.&+-, a letter or digit first"


def check_domain(name: str, key: str) -> None:
    """Raise UserError unless `name` can be the name of a domain; `key` is where it stands."""
    if not _NAME.fullmatch(name):
        raise UserError(f"{key}: {name!r} is no name of a domain; give {_FORM}")


def row_domain(name: str, column: str | None) -> str:
    """The domain that a row names in `column`; None = `name` comes from the config.

    Raises:
        RowError: It cannot be the name of a domain.
    """
    if column is not None and not _NAME.fullmatch(name):
        raise RowError(
            "unreadable_domain_column",
            f"'{column}' is {short_repr(name)}; give {_FORM}, or name another column in "
            "data.rows.domain_column",
        )
    return name
