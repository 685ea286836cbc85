"""Small files of problems, and all problems of a source."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.data.sources.config import FileConfig
from reasoning_lab.data.sources.problem_source import ProblemSource
from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.data.sources.table_source import TableSource
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


def file_source(
    path: Path | str,
    test_frac: float = 0.0,
    validation_frac: float = 0.0,
    rows: Mapping[str, Any] | None = None,
    **options: Any,
) -> TableSource:
    """The source of a local file, as composition builds it."""
    config = FileConfig(
        path=str(path),
        rows=RowMapping(**rows or {}),
        test_frac=test_frac,
        validation_frac=validation_frac,
        **options,
    )
    return config.build()
