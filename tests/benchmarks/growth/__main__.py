"""How the cost of each part grows with what it works on: nothing linear may be quadratic.

    python -m tests.benchmarks.growth [CURVE,CURVE…] [--out FOLDER] [--threads N]

Every curve doubles one size and keeps the others. Its exponent is the slope in the upper half of
the sizes, on logarithmic axes; it passes when it is at most 0.25 above the expected one. Writes
`growth.json`, `growth.md` and `growth.png`; ends with 1 when a curve does not pass. Run it on an
idle machine.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes

from reasoning_lab.report.figures import COLOURS, INK, new_figure, save_figure, style_axes

from . import graphs, models, problems
from .curve import MARGIN, Curve, measured_row

CURVES: dict[str, Curve] = {**models.CURVES, **problems.CURVES, **graphs.CURVES}
_PANELS_A_ROW = 5


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        f"{torch.get_num_threads()} threads of {os.cpu_count()} cores, torch {torch.__version__}; "
        "medians of 3 to 15 repetitions. The exponent is of the upper half of the sizes.",
        "",
        "| curve | work | over | sizes | seconds | exponent | expected at most | passes |",
        "|:--|:--|:--|--:|--:|--:|--:|:--|",
    ]
    for row in rows:
        sizes, seconds = row["sizes"], row["seconds"]
        lines.append(
            f"| {row['name']} | {row['work']} | {row['axis']} | {sizes[0]:,}–{sizes[-1]:,} "
            f"| {seconds[0]:.2g}–{seconds[-1]:.2g} | {row['exponent']:.2f} "
            f"| {row['expected']:g} + {MARGIN:g} | {'yes' if row['passes'] else '**no**'} |"
        )
    return "\n".join(lines) + "\n"


def save_curves(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """A panel a curve, all logarithmic; the dashed line through its largest size is linear."""
    across = min(len(rows), _PANELS_A_ROW)
    down = -(-len(rows) // across)
    figure = new_figure(3.1 * across, 0.6 + 2.6 * down)
    panels = figure.subplots(down, across, squeeze=False).flatten()
    for row, panel in zip(rows, panels, strict=False):
        _plot_curve(panel, row)
    for unused in panels[len(rows) :]:
        unused.remove()
    save_figure(figure, "seconds against size; dashed: linear, through the largest size", path)


def _plot_curve(panel: Axes, row: dict[str, Any]) -> None:
    sizes, seconds = row["sizes"], row["seconds"]
    linear = [seconds[-1] * size / sizes[-1] for size in sizes]
    panel.loglog(sizes, linear, color=INK, linestyle="--", linewidth=1)
    colour = COLOURS[0] if row["passes"] else COLOURS[1]
    panel.loglog(sizes, seconds, color=colour, marker="o", markersize=4, linewidth=1.6)
    title = f"{row['name']}: {row['exponent']:.2f} of {row['expected']:g}"
    panel.set_title(title, fontsize=9, color=INK, loc="left")
    panel.set_xlabel(row["axis"], fontsize=9, color=INK)
    panel.set_ylabel("seconds", fontsize=9, color=INK)
    panel.set_xticks([sizes[0], sizes[-1]], [f"{sizes[0]:,}", f"{sizes[-1]:,}"])
    panel.set_xticks([], minor=True)
    style_axes(panel, "y")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("curves", nargs="?", default="", help="names, with commas; all by default")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path("runs"))
    options = parser.parse_args()
    options.curves = [name for name in options.curves.split(",") if name] or list(CURVES)
    unknown = [name for name in options.curves if name not in CURVES]
    if unknown:
        parser.error(f"no curve is called {', '.join(unknown)}; there are {', '.join(CURVES)}")
    return options


def main() -> int:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    machine = {"threads": options.threads, "cpus": os.cpu_count(), "torch": torch.__version__}
    for name in options.curves:
        row = measured_row(name, CURVES[name])
        rows.append(row)
        times = ", ".join(f"{seconds:.3g}" for seconds in row["seconds"])
        print(f"{name}: {row['exponent']:.2f} of {row['expected']:g} ({times} s)", flush=True)
        # Written after each curve, so that an interrupted run keeps its results.
        content = {"machine": machine, "results": rows}
        (options.out / "growth.json").write_text(json.dumps(content, indent=1) + "\n")
        (options.out / "growth.md").write_text(table(rows))
    save_curves(rows, options.out / "growth.png")
    print((options.out / "growth.md").read_text())
    return 0 if all(row["passes"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
