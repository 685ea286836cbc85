"""The stage table, as Markdown for the report and as a rich table for the terminal.

Both show the same cells. A variant or seed column appears only where rows differ in it.
"""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from reasoning_lab.report.rows import Row, StageDifference, StageMean

_TEXT_COLUMNS = ("variant", "stage", "benchmark")


def markdown_table(rows: Sequence[Row]) -> str:
    """The rows in their order as a GitHub table, numbers aligned to the right."""
    columns = _columns(rows)
    return _markdown(columns, [_cells(row, columns) for row in rows])


def console_table(rows: Sequence[Row]) -> Table:
    """The same table for a terminal; a narrow one folds names, never cuts numbers."""
    columns = _columns(rows)
    title = "pass@1 on held-out problems"
    return _console(title, columns, [_cells(row, columns) for row in rows])


def markdown_means(means: Sequence[StageMean]) -> str:
    """Means over seeds as a GitHub table."""
    return _markdown(*_mean_cells(means))


def console_means(means: Sequence[StageMean]) -> Table:
    """Means over seeds for a terminal."""
    return _console("pass@1, mean over seeds", *_mean_cells(means))


def _markdown(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    rule = [":--" if name in _TEXT_COLUMNS else "--:" for name in columns]
    lines = [columns, rule, *cells]
    return "".join("| " + " | ".join(_escape(cell) for cell in line) + " |\n" for line in lines)


def _console(title: str, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    for name in columns:
        if name in _TEXT_COLUMNS:
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True)
    for line in cells:
        table.add_row(*line)
    return table


def _mean_cells(means: Sequence[StageMean]) -> tuple[list[str], list[list[str]]]:
    columns = ["stage", "benchmark", "pass@1", "95% interval", "n", "each seed"]
    cells = [
        [
            mean.stage,
            mean.benchmark,
            percent(mean.estimate.mean),
            f"{100 * mean.estimate.low:.1f}–{percent(mean.estimate.high)}",
            f"{mean.estimate.n:,}",
            ", ".join(percent(value) for _, value in sorted(mean.by_seed.items())),
        ]
        for mean in means
    ]
    if len({mean.variant for mean in means}) > 1:
        columns.insert(0, "variant")
        cells = [[mean.variant, *line] for mean, line in zip(means, cells, strict=True)]
    return columns, cells


def sentence(comparison: StageDifference) -> str:
    """One comparison in words, in percentage points."""
    d = comparison.difference
    evidence = (
        f"95% interval {100 * d.low:+.1f} to {100 * d.high:+.1f}, {_p_value(d.p_value)}, n = {d.n}"
    )
    if len(comparison.seeds) > 1:
        evidence += f", {len(comparison.seeds)} seeds"
    pair = f"**{comparison.stage}** and **{comparison.baseline}**"
    if d.p_value >= 0.05:
        return f"{pair} cannot be told apart: {100 * d.mean:+.1f} points ({evidence})."
    verb, relation = ("gains", "over") if d.mean > 0 else ("loses", "against")
    return (
        f"**{comparison.stage}** {verb} {100 * abs(d.mean):.1f} points {relation} "
        f"**{comparison.baseline}** ({evidence})."
    )


def percent(fraction: float) -> str:
    """0.4625 -> 46.2%."""
    return f"{100 * fraction:.1f}%"


def _columns(rows: Sequence[Row]) -> list[str]:
    columns = ["stage", "benchmark", "pass@1", "95% interval", "n", "samples"]
    columns += ["completion tokens", "train tokens", "seconds"]
    if len({row.seed for row in rows}) > 1:
        columns.insert(0, "seed")
    if len({row.variant for row in rows}) > 1:
        columns.insert(0, "variant")
    return columns


def _cells(row: Row, columns: Sequence[str]) -> list[str]:
    low, high = row.ci95
    cells = {
        "variant": row.variant,
        "seed": str(row.seed),
        "stage": row.stage,
        "benchmark": row.benchmark,
        "pass@1": percent(row.pass_at_1),
        "95% interval": f"{100 * low:.1f}–{percent(high)}",
        "n": f"{row.n:,}",
        "samples": str(row.samples),
        "completion tokens": f"{row.completion_tokens:,.1f}",
        "train tokens": f"{row.train_tokens:,}",
        "seconds": f"{row.wall_s:,.0f}",
    }
    return [cells[name] for name in columns]


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|")


def _p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
