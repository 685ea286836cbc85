"""Reports: the stage table, its paired differences in words, and the ladder figure.

Place in the flow: last; a finished recipe, or a look over the store, hands rows over and
gets `report.md`, `report.json` and `ladder.png`. Each is renamed into place, the figure
before the page that shows it, so a reader never sees half a file.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from reasoning_lab.report.figure import save_ladder
from reasoning_lab.report.rows import (
    Row,
    StageDifference,
    StageMean,
    StageResult,
    stage_differences,
    stage_means,
)
from reasoning_lab.report.table import (
    console_means,
    console_table,
    markdown_means,
    markdown_table,
    sentence,
)
from reasoning_lab.types import UserError

__all__ = [
    "Row",
    "StageDifference",
    "StageMean",
    "StageResult",
    "console_means",
    "console_table",
    "stage_differences",
    "stage_means",
    "write_report",
]

_FIGURE = "ladder.png"
_METHOD = (
    "Intervals hold 95% and are clustered by problem; differences are paired over problems, "
    "with p from a sign-flip permutation test, not corrected for the number of comparisons."
)


def write_report(
    rows: Sequence[Row],
    differences: Sequence[StageDifference],
    out_dir: Path,
    means: Sequence[StageMean] = (),
) -> dict[str, Path]:
    """Write `ladder.png`, `report.json` and `report.md` into `out_dir`, made if missing.

    `means` come first in the page; the file has them only where a stage has several seeds.

    Returns:
        Paths under `figure`, `json` and `markdown`.

    Raises:
        UserError: There is no row to report.
        ValueError: A number is NaN or infinite.
    """
    if not rows:
        raise UserError(
            f"There is no evaluation to report in {out_dir}: run a recipe that evaluates first."
        )
    content = {
        "rows": [row.as_json() for row in rows],
        "differences": [difference.as_json() for difference in differences],
        **({"means": [mean.as_json() for mean in means]} if means else {}),
    }
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = {
        "figure": out_dir / _FIGURE,
        "json": out_dir / "report.json",
        "markdown": out_dir / "report.md",
    }
    page = _markdown(rows, differences, means)
    _replace(paths["figure"], lambda path: save_ladder(rows, path))
    _replace(paths["json"], lambda path: _write_text(path, text))
    _replace(paths["markdown"], lambda path: _write_text(path, page))
    return paths


def _markdown(
    rows: Sequence[Row], differences: Sequence[StageDifference], means: Sequence[StageMean]
) -> str:
    """The page: tables, figure, one sentence a comparison, and the method."""
    parts = ["# pass@1 on held-out problems\n"]
    if means:
        parts += [
            "Mean over seeds; intervals speak of new problems for these policies, not of seeds:\n",
            markdown_means(means),
            "Each seed:\n",
        ]
    parts.append(markdown_table(rows))
    parts.append(f"![pass@1 after each stage, with 95% intervals]({_FIGURE})\n")
    if differences:
        parts.append("## What each stage changed\n")
    groups: dict[tuple[str, str], list[str]] = {}
    for difference in differences:
        lines = groups.setdefault((difference.variant, difference.benchmark), [])
        lines.append(f"- {sentence(difference)}\n")
    for (variant, benchmark), lines in groups.items():
        parts += [f"On {benchmark} ({variant}), in percentage points:\n", "".join(lines)]
    parts.append(f"{_METHOD}\n")
    return "\n".join(parts)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    """Write a hidden sibling with `write` and rename it to `path`."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
