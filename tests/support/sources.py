"""Small files of problems, and all problems of a source."""

import json
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.data.sources.problem_source import ProblemSource
from reasoning_lab.types import Problem, Split, UserError

GOOD = '{"prompt": "1 + 1?", "gold": "2", "level": 1}'


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def everything(source: ProblemSource, levels: tuple[int, ...] = (1,)) -> dict[Split, list[Problem]]:
    """All problems of each split; the error for too many says how many there are."""
    problems = {}
    for split in Split:
        with pytest.raises(UserError, match=rf"distinct {split} prompts") as refusal:
            list(source.problems(split, levels, 10**6, 0))
        count = int(str(refusal.value).split(" has ")[1].split()[0])
        problems[split] = list(source.problems(split, levels, count, 0))
    return problems
