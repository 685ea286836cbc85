"""The style of every figure: colours that colour-blind readers can distinguish, and few lines.

Colours are those of Okabe and Ito, "Color Universal Design" (2008).
"""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, GRID = "#333333", "#DDDDDD"


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
