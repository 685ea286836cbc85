r"""The report's tables and sentences: Markdown, LaTeX with booktabs for `\input`, and the terminal.

All show the same cells. The columns variant and seed appear only if rows differ in them.
"""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reasoning_lab.evaluate.completion_metrics import PREFIX
from reasoning_lab.evaluate.statistics import Difference
from reasoning_lab.graph.recipe import variant_label
from reasoning_lab.report.comparisons import Claims, Comparison, StageMean
from reasoning_lab.report.rows import Row

_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "–": "--",
}
# What a column of lists, which breaks between percentages, has at least: two of them.
_LIST_COLUMN, _LEAST_LIST = "each seed", 13
TEXT_COLUMNS = ("variant", "stage", "benchmark", "policy", "against", "unit", "dropped")


def heading(rows: Sequence[Row]) -> str:
    """What the numbers are, with the benchmarks by name."""
    benchmarks = dict.fromkeys(row.benchmark for row in rows if row.domain is None)
    return f"pass@1 on {', '.join(benchmarks)}"


def filled(
    columns: Sequence[str], cells: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """The columns that hold something, with their cells; all of a table without rows."""
    places = [at for at in range(len(columns)) if not cells or any(line[at] for line in cells)]
    return [columns[at] for at in places], [[line[at] for at in places] for line in cells]


def markdown_table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A GitHub table, numbers aligned to the right; a column without content is left out."""
    columns, cells = filled(columns, cells)
    rule = [":--" if name in TEXT_COLUMNS else "--:" for name in columns]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in (columns, rule, *cells)]
    return "".join("| " + " | ".join(line) + " |\n" for line in escaped)


def console_table(
    title: str, columns: Sequence[str], cells: Sequence[Sequence[str]]
) -> RenderableType:
    """A table for a terminal; a narrow one folds names and never cuts numbers.

    A variant stands above its rows, and a domain without its benchmark, which is above it.
    """
    columns, cells = filled(columns, cells)
    if "variant" not in columns:
        return _console_rows(title, columns, cells)
    place = columns.index("variant")
    names = columns[:place] + columns[place + 1 :]
    widths = [max(len(line[at]) for line in cells) for at in range(len(columns)) if at != place]
    parts: list[RenderableType] = [Text(title, style="table.title")]
    for variant, lines in groupby(cells, itemgetter(place)):
        rows = [[*line[:place], *line[place + 1 :]] for line in lines]
        parts += [Text(f"\n{variant}", style="bold"), _console_rows(None, names, rows, widths)]
    return Group(*parts)


def _console_rows(
    title: str | None,
    columns: Sequence[str],
    cells: Sequence[Sequence[str]],
    widths: Sequence[int | None] | None = None,
) -> Table:
    """One table; `widths` are the least of its numbers, so that those of several are aligned."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    for name, width in zip(columns, widths or [None] * len(columns), strict=True):
        if name in TEXT_COLUMNS:
            table.add_column(name, overflow="fold")
        else:
            is_list = name == _LIST_COLUMN
            table.add_column(
                name.replace(" ", "\n"),
                justify="right",
                no_wrap=not is_list,
                min_width=_LEAST_LIST if is_list else width,
            )
    place = columns.index("benchmark") if "benchmark" in columns else None
    for line in cells:
        shown = list(line)
        if place is not None and "/" in line[place]:
            shown[place] = f"/{line[place].partition('/')[2]}"
        table.add_row(*shown)
    return table


def mean_cells(means: Sequence[StageMean]) -> tuple[list[str], list[list[str]]]:
    """Columns and cells of the means over seeds."""
    columns = ["stage", "benchmark", "pass@1", "95% interval", "over seeds", "n", _LIST_COLUMN]
    cells = [
        [
            mean.stage,
            mean.benchmark,
            percent(mean.estimate.mean),
            interval(mean.estimate.low, mean.estimate.high),
            interval(*mean.seeds_ci95),
            f"{mean.estimate.n:,}",
            ", ".join(percent(value) for _, value in sorted(mean.by_seed.items())),
        ]
        for mean in means
    ]
    if len({mean.variant for mean in means}) > 1:
        columns.insert(0, "variant")
        cells = [
            [variant_label(mean.variant), *line] for mean, line in zip(means, cells, strict=True)
        ]
    return columns, cells


def comparison_cells(comparisons: Sequence[Comparison]) -> tuple[list[str], list[list[str]]]:
    """Columns and cells of paired comparisons, in percentage points.

    Those over seeds are there if any comparison has enough of them, and the variant if stages of
    several are compared.
    """
    of_stages = [c for c in comparisons if c.variant == c.baseline_variant]
    several = len({comparison.variant for comparison in of_stages}) > 1
    over_seeds = any(comparison.over_seeds for comparison in comparisons)
    columns = ["policy", "against", "benchmark", "points", "95% interval", "p", "p corrected"]
    columns += ["over seeds", "p over seeds", "p corrected over seeds"] if over_seeds else []
    return [*(["variant"] if several else []), *columns, "n"], [
        [
            *([variant_label(comparison.variant)] if several else []),
            *labels(comparison),
            comparison.benchmark,
            f"{100 * comparison.difference.mean:+.1f}",
            points(comparison.difference),
            p_value(comparison.difference.p_value),
            p_value(comparison.p_corrected),
            *(_seed_cells(comparison) if over_seeds else []),
            f"{comparison.difference.n:,}",
        ]
        for comparison in comparisons
    ]


def _seed_cells(comparison: Comparison) -> list[str]:
    difference, corrected = comparison.over_seeds, comparison.seeds_p_corrected
    if difference is None or corrected is None:
        return ["", "", ""]
    return [points(difference), p_value(difference.p_value), p_value(corrected)]


def sentence(comparison: Comparison) -> str:
    """One comparison in words, in percentage points; the corrected p-value decides the verb.

    From three seeds on it is that over seeds. With fewer, the sentence speaks of these policies.
    """
    d, p = comparison.decisive
    seeds = len(comparison.seeds)
    if comparison.over_seeds is None:
        evidence = f"95% interval {points(d)}, {_equals(p)}, n = {d.n}, these policies"
        evidence += f" of {seeds} seeds" if seeds > 1 else " alone"
    else:
        evidence = f"95% interval over seeds {points(d)}, {_equals(p)}, n = {d.n}, {seeds} seeds"
        evidence += f"; over problems for these policies {points(comparison.difference)}, "
        evidence += _equals(comparison.p_corrected)
    policy, baseline = (f"**{label}**" for label in labels(comparison))
    if p >= 0.05:
        return (
            f"{policy} and {baseline} cannot be told apart: {100 * d.mean:+.1f} points "
            f"({evidence})."
        )
    verb, relation = ("gains", "over") if d.mean > 0 else ("loses", "against")
    return f"{policy} {verb} {100 * abs(d.mean):.1f} points {relation} {baseline} ({evidence})."


def _equals(p: float) -> str:
    text = p_value(p)
    return f"p {text if '<' in text else f'= {text}'}"


def sentences(comparisons: Sequence[Comparison]) -> list[str]:
    """Each comparison in words, with the benchmark in front where there are several.

    So is the variant, where several have ladders.
    """
    several = len({comparison.variant for comparison in comparisons}) > 1
    several_benchmarks = len({comparison.benchmark for comparison in comparisons}) > 1
    lines = []
    for c in comparisons:
        names = [variant_label(c.variant)] if several and c.variant == c.baseline_variant else []
        names += [c.benchmark] if several_benchmarks else []
        lines.append(f"{', '.join(names)}: {sentence(c)}" if names else sentence(c))
    return lines


def labels(comparison: Comparison) -> tuple[str, str]:
    """The names of a comparison's two policies: stages, or variants if these differ."""
    if comparison.variant == comparison.baseline_variant:
        return comparison.stage, comparison.baseline
    return variant_label(comparison.variant), variant_label(comparison.baseline_variant)


def interval(low: float, high: float) -> str:
    """Ends of an interval as percentages."""
    return f"{100 * low:.1f}–{percent(high)}"


def points(difference: Difference) -> str:
    """The interval of a difference, in percentage points."""
    return f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}"


def percent(fraction: float) -> str:
    """0.4625 -> 46.2%."""
    return f"{100 * fraction:.1f}%"


def row_cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Columns and cells of the table of all policies; variant and seed only where they differ."""
    columns = ["stage", "benchmark", "pass@1", "95% interval", "n", "samples"]
    # A majority of two samples means nothing.
    has_majority = any(row.samples > 2 and _of_all("maj", row) for row in rows)
    columns += ["pass@all", "maj@all"] if has_majority else []
    columns += ["cut off"] if any(row.measured.get("truncated_frac") for row in rows) else []
    columns += ["completion tokens"]
    columns += sorted({key for row in rows for key in row.measured if key.startswith(PREFIX)})
    columns += ["train tokens", "seconds"] if any(row.train_tokens for row in rows) else []
    if len({row.seed for row in rows}) > 1:
        columns.insert(0, "seed")
    if len({row.variant for row in rows}) > 1:
        columns.insert(0, "variant")
    return columns, [[_cell(row, name) for name in columns] for row in rows]


def _cell(row: Row, name: str) -> str:
    if name.startswith(PREFIX):
        estimate = row.measured.get(name)
        return "" if estimate is None else "{:.3g} ({:.3g} to {:.3g})".format(*estimate)
    tokens = row.completion_tokens
    cells = {
        "variant": variant_label(row.variant),
        "seed": str(row.seed),
        "stage": row.stage,
        "benchmark": row.benchmark,
        "pass@1": percent(row.pass_at_1),
        "95% interval": interval(*row.ci95),
        "n": f"{row.n:,}",
        "samples": str(row.samples),
        "pass@all": _of_all("pass", row),
        "maj@all": _of_all("maj", row),
        "cut off": "" if row.domain else percent(row.measured.get("truncated_frac", 0.0)),
        "completion tokens": "" if tokens is None else f"{tokens:,.1f}",
        "train tokens": f"{row.train_tokens:,}",
        "seconds": f"{row.wall_s:,.0f}",
    }
    return cells[name]


def _of_all(name: str, row: Row) -> str:
    metric = row.measured.get(f"{name}@{row.samples}")
    return "" if metric is None else percent(metric[0])


def p_value(p: float) -> str:
    """Three digits, or `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def latex_tables(rows: Sequence[Row], claims: Claims, method: str) -> str:
    """All tables of the report; a comment above each `tabular` names it."""
    parts = [f"% {method}\n"]
    if claims.means:
        parts.append(_tabular(f"{heading(rows)}, mean over seeds", *mean_cells(claims.means)))
    parts.append(_tabular(heading(rows), *row_cells(rows)))
    if claims.variants:
        parts.append(_tabular("variants, paired", *comparison_cells(claims.variants)))
    if claims.stages:
        parts.append(_tabular("stages, paired", *comparison_cells(claims.stages)))
    return "\n".join(parts)


def _tabular(name: str, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    columns, cells = filled(columns, cells)
    alignment = "".join("l" if column in TEXT_COLUMNS else "r" for column in columns)
    lines = [_latex_row(columns), "\\midrule\n", *map(_latex_row, cells)]
    return (
        f"% {name}\n\\begin{{tabular}}{{{alignment}}}\n\\toprule\n"
        + "".join(lines)
        + "\\bottomrule\n\\end{tabular}\n"
    )


def _latex_row(cells: Sequence[str]) -> str:
    escaped = ("".join(_LATEX.get(character, character) for character in cell) for cell in cells)
    return " & ".join(escaped) + " \\\\\n"
