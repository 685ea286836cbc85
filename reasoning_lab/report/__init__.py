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
from reasoning_lab.report.rows import Row, StageDifference, StageResult, stage_differences
from reasoning_lab.report.table import console_table, markdown_table, sentence
from reasoning_lab.types import UserError

__all__ = [
    "Row",
    "StageDifference",
    "StageResult",
    "console_table",
    "stage_differences",
    "write_report",
]

_FIGURE = "ladder.png"
_METHOD = (
    "Intervals hold 95% and are clustered by problem; differences are paired over problems, "
    "with p from a sign-flip permutation test, not corrected for the number of comparisons."
)


def write_report(
    rows: Sequence[Row], differences: Sequence[StageDifference], out_dir: Path
) -> dict[str, Path]:
    """Write `ladder.png`, `report.json` and `report.md` into `out_dir`, made if missing.

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
    }
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = {
        "figure": out_dir / _FIGURE,
        "json": out_dir / "report.json",
        "markdown": out_dir / "report.md",
    }
    _replace(paths["figure"], lambda path: save_ladder(rows, path))
    _replace(paths["json"], lambda path: _write_text(path, text))
    _replace(paths["markdown"], lambda path: _write_text(path, _markdown(rows, differences)))
    return paths


def _markdown(rows: Sequence[Row], differences: Sequence[StageDifference]) -> str:
    """The page: table, figure, one sentence a comparison, and the method."""
    parts = ["# pass@1 on held-out problems\n", markdown_table(rows)]
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
