"""Figures as PNGs: the ablation, and the lengths of right and wrong completions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.patches import Patch

from reasoning_lab.graph.recipe import variant_label
from reasoning_lab.report.comparisons import Comparison
from reasoning_lab.report.rows import StageResult
from reasoning_lab.report.style import COLOURS, INK, new_figure, save_figure, style_axes
from reasoning_lab.report.table import p_value

_BOX_WIDTH = 0.32
_PANELS_A_ROW = 3


def save_ablation(comparisons: Sequence[Comparison], path: Path) -> None:
    """Draw a bar for each variant: its difference to the full recipe with the 95% interval."""
    benchmarks = list(dict.fromkeys(comparison.benchmark for comparison in comparisons))
    names = [
        variant_label(c.variant) + (f"\non {c.benchmark}" if len(benchmarks) > 1 else "")
        for c in comparisons
    ]
    means = np.array([100 * c.difference.mean for c in comparisons])
    low = np.array([100 * c.difference.low for c in comparisons])
    high = np.array([100 * c.difference.high for c in comparisons])
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
    for position, comparison, right in zip(
        positions, comparisons, np.maximum(high, 0), strict=True
    ):
        panel.annotate(
            f"{100 * comparison.difference.mean:+.1f} (p {p_value(comparison.p_corrected)})",
            (right, position),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
        )
    panel.set_yticks(positions, names)
    panel.set_xlabel("percentage points of pass@1", fontsize=9, color=INK)
    panel.margins(x=0.3)
    style_axes(panel, "x")
    baseline = variant_label(comparisons[0].baseline_variant)
    save_figure(figure, f"last policy against {baseline} (95% intervals, corrected p)", path)


def save_lengths(results: Sequence[StageResult], path: Path) -> None:
    """Draw boxes of the lengths of right and of wrong completions after every stage."""
    panels = list(dict.fromkeys((result.variant, result.benchmark) for result in results))
    stages = list(dict.fromkeys(result.stage for result in results))
    across = min(len(panels), _PANELS_A_ROW)
    down = -(-len(panels) // across)
    width = max(6.4, across * (1.6 + 0.85 * len(stages)))
    figure = new_figure(width, 0.9 + 3.2 * down)
    axes = figure.subplots(down, across, sharey=True, squeeze=False).flatten()
    for (variant, benchmark), panel in zip(panels, axes, strict=False):
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
        panel.set_xticks(range(len(stages)), stages)
        panel.set_xlim(-0.5, len(stages) - 0.5)
        style_axes(panel, "y")
        if len(panels) > 1:
            panel.set_title(
                f"{variant_label(variant)}, {benchmark}", fontsize=10, color=INK, loc="left"
            )
    for unused in axes[len(panels) :]:
        unused.remove()
    keys = [Patch(color=COLOURS[0], label="right"), Patch(color=COLOURS[1], label="wrong")]
    figure.legend(handles=keys, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    save_figure(figure, "tokens of a completion (box: quartiles; whiskers: 5% to 95%)", path)


def _lengths(result: StageResult, right: bool) -> np.ndarray:
    correct = np.asarray(result.correct, dtype=bool)
    lengths: np.ndarray = np.asarray(result.completion_tokens)[correct == right]
    return lengths
