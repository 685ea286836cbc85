"""Files with one JSON object a line, read a line at a time; for problems, benchmarks and audits."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reasoning_lab.types import UserError


def json_lines(path: Path, key: str) -> Iterator[tuple[int, Any]]:
    """Yield each line's number, from 1, and what it holds; empty lines are passed over.

    Args:
        path: The file.
        key: What names it, for the error: a config key or a command's option.

    Raises:
        UserError: The file cannot be read, or a line is no JSON; the line is named.
    """
    try:
        # Not universal newlines: a JSON string may hold U+2028 and its like as they are.
        with path.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _content(line, f"{path}, line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{key}: cannot read '{path}' ({error}); give a UTF-8 JSONL file"
        ) from error


def _content(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: not JSON ({error.msg}); write one object a line") from error
    except RecursionError as error:
        raise UserError(f"{place}: nested too deep; write one flat object a line") from error
