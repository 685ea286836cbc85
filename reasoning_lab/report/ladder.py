"""The stage ladder: pass@1 after every stage with its 95% interval, as a PNG.

Each variant has a panel, each benchmark a colour and a marker. Several seeds are drawn side by
side, and the line goes through their mean.
"""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from reasoning_lab.graph.recipe import variant_label
from reasoning_lab.report.rows import Row
from reasoning_lab.report.style import COLOURS, INK, new_figure, save_figure, style_axes

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_PANELS_A_ROW = 3
_BENCHMARK_GAP = 0.14
_SEED_GAP = 0.04


def save_ladder(rows: Sequence[Row], path: Path) -> None:
    """Draw `rows` into the PNG file `path` at 150 dots per inch."""
    variants = list(dict.fromkeys(row.variant for row in rows))
    stages = list(dict.fromkeys(row.stage for row in rows))
    benchmarks = list(dict.fromkeys(row.benchmark for row in rows))
    across = min(len(variants), _PANELS_A_ROW)
    down = -(-len(variants) // across)
    width = max(6.4, across * (1.6 + 0.85 * len(stages)))
    figure = new_figure(width, 0.7 + 3.6 * down)
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    grid[0, 0].set_ylim(0, 1.05)  # Once, as the panels share the axis.
    panels = grid.flat
    for variant, panel in zip(variants, panels, strict=False):
        variant_rows = [row for row in rows if row.variant == variant]
        _draw_panel(panel, variant_rows, stages, benchmarks)
        if len(variants) > 1:
            panel.set_title(variant_label(variant), fontsize=10, color=INK, loc="left")
    for unused in list(panels):
        unused.remove()
    if len(benchmarks) > 1:
        entries: dict[str, Artist] = {}
        for panel in figure.axes:
            handles, labels = panel.get_legend_handles_labels()
            entries |= dict(zip(labels, handles, strict=True))
        figure.legend(
            [entries[name] for name in benchmarks],
            benchmarks,
            loc="outside lower center",
            ncols=4,
            frameon=False,
            fontsize=9,
        )
    save_figure(figure, _title(rows, benchmarks), path)


def _title(rows: Sequence[Row], benchmarks: Sequence[str]) -> str:
    sizes = " to ".join(str(n) for n in sorted({min(r.n for r in rows), max(r.n for r in rows)}))
    subject = f" on {benchmarks[0]}" if len(benchmarks) == 1 else ""
    return f"pass@1{subject} after each stage (95% intervals, n = {sizes})"


def _draw_panel(
    panel: Axes, rows: Sequence[Row], stages: Sequence[str], benchmarks: Sequence[str]
) -> None:
    """Draw one variant; every panel has the same stages, so that panels can be compared."""
    for index, benchmark in enumerate(benchmarks):
        benchmark_rows = [row for row in rows if row.benchmark == benchmark]
        if benchmark_rows:
            centre = (index - (len(benchmarks) - 1) / 2) * _BENCHMARK_GAP
            _draw_benchmark(panel, benchmark_rows, stages, index, centre)
    if len(benchmarks) == 1:
        _write_means(panel, rows, stages)
    panel.set_xticks(range(len(stages)), stages, fontsize=9)
    panel.set_xlim(-0.5, len(stages) - 0.5)
    panel.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    style_axes(panel, "y")


def _draw_benchmark(
    panel: Axes, rows: Sequence[Row], stages: Sequence[str], index: int, centre: float
) -> None:
    """Draw a line through the seeds' means, and each seed's point with its interval."""
    means = _means(rows, stages)
    colour, marker = COLOURS[index % len(COLOURS)], _MARKERS[index % len(_MARKERS)]
    positions = [position + centre for position in means]
    panel.plot(positions, list(means.values()), color=colour, linewidth=1.6, alpha=0.55)
    seeds = sorted({row.seed for row in rows})
    shifts = [
        stages.index(row.stage)
        + centre
        + (seeds.index(row.seed) - (len(seeds) - 1) / 2) * _SEED_GAP
        for row in rows
    ]
    heights = [row.pass_at_1 for row in rows]
    below = [max(row.pass_at_1 - row.ci95[0], 0.0) for row in rows]
    above = [max(row.ci95[1] - row.pass_at_1, 0.0) for row in rows]
    panel.errorbar(
        shifts,
        heights,
        yerr=[below, above],
        fmt=marker,
        color=colour,
        markersize=5,
        capsize=2.5,
        linewidth=1.2,
        label=rows[0].benchmark,
    )


def _write_means(panel: Axes, rows: Sequence[Row], stages: Sequence[str]) -> None:
    """Write each stage's mean over seeds above its intervals."""
    tops = {stages.index(row.stage): 0.0 for row in rows}
    for row in rows:
        tops[stages.index(row.stage)] = max(tops[stages.index(row.stage)], row.ci95[1])
    for position, mean in _means(rows, stages).items():
        panel.annotate(
            f"{100 * mean:.1f}%",
            (position, tops[position]),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=INK,
        )


def _means(rows: Sequence[Row], stages: Sequence[str]) -> dict[int, float]:
    """Position of each stage that has rows to its mean pass@1 over seeds, from left to right."""
    by_position: dict[int, list[float]] = {}
    for row in rows:
        by_position.setdefault(stages.index(row.stage), []).append(row.pass_at_1)
    return {p: sum(by_position[p]) / len(by_position[p]) for p in sorted(by_position)}
