"""Prompts of benchmarks that are no part of the recipe: local JSONL files."""

from pathlib import Path
from typing import Any

from reasoning_lab.data.sources.json_lines import json_lines
from reasoning_lab.types import UserError

COLUMNS = ("prompt", "problem", "question")


def read_prompts(path: str, key: str) -> list[str]:
    """The prompts of a file with one JSON object a line, from the first of `COLUMNS` it has.

    Raises:
        UserError: For a file that cannot be read or a malformed row; it names `key` or the line.
    """
    return [_prompt(row, f"{path}, line {number}") for number, row in json_lines(Path(path), key)]


def _prompt(row: Any, where: str) -> str:
    found = row if isinstance(row, dict) else {}
    prompt = next((found[name] for name in COLUMNS if name in found), None)
    if not isinstance(prompt, str):
        columns = f" (its columns are {', '.join(row) or 'none'})" if isinstance(row, dict) else ""
        raise UserError(f"{where}: no text under {', '.join(COLUMNS)}{columns}; give one of them")
    return prompt
