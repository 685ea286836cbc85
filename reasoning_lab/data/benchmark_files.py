"""Prompts of benchmarks that are no part of the recipe: local JSONL files."""

import json
from pathlib import Path
from typing import Any

from reasoning_lab.types import UserError

COLUMNS = ("prompt", "problem", "question")


def read_prompts(path: str, key: str) -> list[str]:
    """The prompts of a file with one JSON object a line, from the first of `COLUMNS` it has.

    Raises:
        UserError: For a file that cannot be read or a malformed row; it names `key` or the line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{key}: cannot read '{path}' ({error}); give a UTF-8 JSONL file"
        ) from error
    return [
        _prompt(line, f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _prompt(line: str, where: str) -> str:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error}); write one object a line") from error
    found = row if isinstance(row, dict) else {}
    prompt = next((found[name] for name in COLUMNS if name in found), None)
    if not isinstance(prompt, str):
        raise UserError(f"{where}: no text under {', '.join(COLUMNS)}; give one of them")
    return prompt
