"""Read the prompts of benchmarks outside the recipe from local JSONL files."""

from pathlib import Path
from typing import Any

from reasoning_lab.data.sources.json_lines import json_lines
from reasoning_lab.types import UserError

COLUMNS = ("prompt", "problem", "question")


def read_prompts(path: str, key: str) -> list[str]:
    """Read the prompt of each JSON line, from the first of `COLUMNS` that it has.

    Raises:
        UserError: The file cannot be read (names `key`), or a row is malformed (names its line).
    """
    return [_prompt(row, f"{path}, line {number}") for number, row in json_lines(Path(path), key)]


def _prompt(row: Any, place: str) -> str:
    columns = row if isinstance(row, dict) else {}
    prompt = next((columns[name] for name in COLUMNS if name in columns), None)
    if not isinstance(prompt, str):
        names = f" (its columns are {', '.join(row) or 'none'})" if isinstance(row, dict) else ""
        raise UserError(f"{place}: no text under {', '.join(COLUMNS)}{names}; give one of them")
    return prompt
