"""Figures as PNGs, and their style: the stage ladder, the ablation, the lengths of completions.

Colours are those of Okabe and Ito, "Color Universal Design" (2008), which colour-blind readers can
distinguish.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from reasoning_lab.graph.recipe import variant_label
from reasoning_lab.report.comparisons import Comparison
from reasoning_lab.report.rows import Row, StageResult
from reasoning_lab.report.table import p_value

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, GRID = "#333333", "#DDDDDD"
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_PANELS_A_ROW = 3
_BENCHMARK_GAP, _SEED_GAP = 0.14, 0.04
_BOX_WIDTH = 0.32
# Room for the label beside a bar, of the width of all bars.
_LABEL_FRAC = 0.5


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches, that needs no display."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def style_axes(panel: Axes, grid: str) -> None:
    """Remove ticks and spines; `grid` is the axis, x or y, that keeps its grid lines."""
    panel.tick_params(colors=INK, length=0, labelsize=9)
    panel.grid(axis="x" if grid == "x" else "y", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color(INK)


def save_figure(figure: Figure, title: str, path: Path) -> None:
    """Write the figure as a PNG, with its title at the left."""
    figure.suptitle(title, fontsize=11, color=INK, x=0.01, ha="left")
    figure.savefig(path, format="png", facecolor="white")


def _stage_panels(
    titles: Sequence[str], stages: Sequence[str], margin: float, height: float
) -> tuple[Figure, list[Axes]]:
    """A panel for each title, with the stages as its x axis; they share the y axis.

    Sizes are in inches: `height` of a row of panels, `margin` of the figure around them.
    """
    across = min(len(titles), _PANELS_A_ROW)
    down = -(-len(titles) // across)
    width = max(6.4, across * (1.6 + 0.85 * len(stages)))
    figure = new_figure(width, margin + height * down)
    panels = list(figure.subplots(down, across, sharey=True, squeeze=False).flat)
    for unused in panels[len(titles) :]:
        unused.remove()
    for title, panel in zip(titles, panels, strict=False):
        panel.set_xticks(range(len(stages)), stages)
        panel.set_xlim(-0.5, len(stages) - 0.5)
        style_axes(panel, "y")
        if len(titles) > 1:
            panel.set_title(title, fontsize=10, color=INK, loc="left")
    return figure, panels[: len(titles)]


def save_ladder(rows: Sequence[Row], path: Path) -> None:
    """Draw pass@1 after every stage with its 95% interval.

    Each variant has a panel, each benchmark a colour and a marker. Several seeds are drawn side by
    side, and the line goes through their mean. Domains are drawn if there are colours for all.
    """
    if len({row.benchmark for row in rows}) > len(COLOURS):
        rows = [row for row in rows if row.domain is None]
    variants = list(dict.fromkeys(row.variant for row in rows))
    stages = list(dict.fromkeys(row.stage for row in rows))
    benchmarks = list(dict.fromkeys(row.benchmark for row in rows))
    figure, panels = _stage_panels([variant_label(name) for name in variants], stages, 0.7, 3.6)
    panels[0].set_ylim(0, 1.05)  # Once, as the panels share the axis.
    for variant, panel in zip(variants, panels, strict=True):
        variant_rows = [row for row in rows if row.variant == variant]
        _draw_panel(panel, variant_rows, stages, benchmarks)
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
    panel.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))


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


def save_ablation(comparisons: Sequence[Comparison], path: Path) -> None:
    """Draw a bar for each variant: its difference to the full recipe with the 95% interval."""
    benchmarks = list(dict.fromkeys(comparison.benchmark for comparison in comparisons))
    names = [
        variant_label(c.variant) + (f"\non {c.benchmark}" if len(benchmarks) > 1 else "")
        for c in comparisons
    ]
    decisive = [c.decisive for c in comparisons]
    means = np.array([100 * difference.mean for difference, _ in decisive])
    low = np.array([100 * difference.low for difference, _ in decisive])
    high = np.array([100 * difference.high for difference, _ in decisive])
    positions = np.arange(len(comparisons))[::-1]
    figure = new_figure(7.2, 1.1 + 0.5 * len(comparisons))
    panel = figure.subplots()
    panel.barh(
        positions,
        means,
        height=0.6,
        xerr=[means - low, high - means],
        color=[COLOURS[benchmarks.index(c.benchmark) % len(COLOURS)] for c in comparisons],
        error_kw={"ecolor": INK, "capsize": 3, "linewidth": 1.2},
        alpha=0.75,
    )
    panel.axvline(0, color=INK, linewidth=1)
    for position, (difference, p), right in zip(
        positions, decisive, np.maximum(high, 0), strict=True
    ):
        panel.annotate(
            f"{100 * difference.mean:+.1f} (p {p_value(p)})",
            (right, position),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
        )
    panel.set_yticks(positions, names)
    panel.set_xlabel("percentage points of pass@1", fontsize=9, color=INK)
    panel.margins(x=0.1)
    left, right = panel.get_xlim()
    panel.set_xlim(left, right + _LABEL_FRAC * (right - left))
    style_axes(panel, "x")
    baseline = variant_label(comparisons[0].baseline_variant)
    save_figure(figure, f"last policy against {baseline} (95% intervals, corrected p)", path)


def save_lengths(results: Sequence[StageResult], path: Path) -> None:
    """Draw boxes of the lengths of right and of wrong completions after every stage."""
    keys = list(dict.fromkeys((result.variant, result.benchmark) for result in results))
    stages = list(dict.fromkeys(result.stage for result in results))
    titles = [f"{variant_label(variant)}, {benchmark}" for variant, benchmark in keys]
    figure, panels = _stage_panels(titles, stages, 0.9, 3.2)
    for (variant, benchmark), panel in zip(keys, panels, strict=True):
        panel_results = [r for r in results if (r.variant, r.benchmark) == (variant, benchmark)]
        for side, right in ((-1, True), (1, False)):
            boxes = {
                place: np.concatenate(
                    [_lengths(r, right) for r in panel_results if r.stage == stage]
                )
                for place, stage in enumerate(stages)
                if any(r.stage == stage for r in panel_results)
            }
            boxes = {place: lengths for place, lengths in boxes.items() if lengths.size}
            if not boxes:
                continue
            artists = panel.boxplot(
                list(boxes.values()),
                positions=[place + side * 0.6 * _BOX_WIDTH for place in boxes],
                widths=_BOX_WIDTH,
                whis=(5, 95),
                showfliers=False,
                patch_artist=True,
                medianprops={"color": INK},
                manage_ticks=False,
            )
            for box in artists["boxes"]:
                box.set_facecolor(COLOURS[0 if right else 1])
                box.set_alpha(0.75)
    handles = [Patch(color=COLOURS[0], label="right"), Patch(color=COLOURS[1], label="wrong")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    save_figure(figure, "tokens of a completion (box: quartiles; whiskers: 5% to 95%)", path)


def _lengths(result: StageResult, right: bool) -> np.ndarray:
    correct = np.asarray(result.correct, dtype=bool)
    lengths: np.ndarray = np.asarray(result.completion_tokens)[correct == right]
    return lengths
