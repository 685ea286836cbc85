r"""The report's tables for a paper: LaTeX with booktabs, ready for `\input`."""

from collections.abc import Sequence

from reasoning_lab.report.comparisons import Claims
from reasoning_lab.report.rows import Row
from reasoning_lab.report.table import (
    TEXT_COLUMNS,
    comparison_cells,
    heading,
    mean_cells,
    row_cells,
    row_columns,
)

_ESCAPES = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "–": "--",
}


def latex_tables(rows: Sequence[Row], claims: Claims, method: str) -> str:
    """All tables of the report; a comment above each `tabular` names it."""
    columns = row_columns(rows)
    parts = [f"% {method}\n"]
    if claims.means:
        parts.append(_tabular(f"{heading(rows)}, mean over seeds", *mean_cells(claims.means)))
    parts.append(_tabular(heading(rows), columns, [row_cells(row, columns) for row in rows]))
    if claims.variants:
        parts.append(_tabular("variants, paired", *comparison_cells(claims.variants)))
    if claims.stages:
        parts.append(_tabular("stages, paired", *comparison_cells(claims.stages)))
    return "\n".join(parts)


def _tabular(name: str, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    alignment = "".join("l" if column in TEXT_COLUMNS else "r" for column in columns)
    lines = [_row(columns), "\\midrule\n", *map(_row, cells)]
    return (
        f"% {name}\n\\begin{{tabular}}{{{alignment}}}\n\\toprule\n"
        + "".join(lines)
        + "\\bottomrule\n\\end{tabular}\n"
    )


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(_escape, cells)) + " \\\\\n"


def _escape(text: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in text)
