"""Accuracy while GRPO trains, by variant: table on standard output, figure beside this file.

    python experiments/005_rl_controls/curves.py

in the folder whose `runs/` holds the sweep over the arms in conf/experiment/005_rl_controls.
"""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from reasoning_lab.commands.schemas import register_schemas
from reasoning_lab.commands.sweep import recipes
from reasoning_lab.evaluate.completions import Evaluation
from reasoning_lab.evaluate.statistics import Difference, over_seeds, paired_difference
from reasoning_lab.graph.recipe import Node
from reasoning_lab.graph.record import Record
from reasoning_lab.graph.store import Store
from reasoning_lab.report.figures import COLOURS, INK, new_figure, save_figure, style_axes
from reasoning_lab.tracking.curves import read_history

ARMS = ("bare", "uniform", "rebalanced", "annealed", "controlled")
SEEDS = (0, 1, 2)
Curve = dict[int, float]


def main() -> None:
    """Print the table and save the figure."""
    register_schemas()
    store = Store(Path("runs/store"))
    curves: dict[str, list[Curve]] = {}
    print(
        "| arm | rollouts | tokens trained | held-out, each seed | RL - SFT | 95% interval |"
        " worst fall | spread | 95% interval |"
    )
    print("| :-- " + "| --: " * 8 + "|")
    for arm in ARMS:
        before: list[npt.NDArray[np.bool_]] = []
        after: list[npt.NDArray[np.bool_]] = []
        rollouts, tokens = [], []
        curves[arm] = []
        for seed in SEEDS:
            (recipe,) = recipes([f"experiment=005_rl_controls/{arm}", f"seed={seed}"])
            nodes = {node.name: node for node in recipe.nodes}
            rl_record = _record(store, nodes["rl"])
            rollouts.append(rl_record.metrics["rollouts"])
            tokens.append(rl_record.metrics["train_tokens"])
            curves[arm].append(read_history(rl_record.path)["val/pass@1"])
            for name, into in (("sft/heldout", before), ("rl/heldout", after)):
                into.append(Evaluation(_record(store, nodes[name]).path).samples(2).correct)
        gain = paired_difference(over_seeds(after), over_seeds(before))
        by_seed = ", ".join(
            f"{100 * b.mean():.1f} → {100 * a.mean():.1f}"
            for b, a in zip(before, after, strict=True)
        )
        print(
            f"| `{arm}` | {np.mean(rollouts):,.0f} | {np.mean(tokens):,.0f} | {by_seed} | "
            f"{_gain_cells(gain)} | {_fall(curves[arm]):.1f} | {_spread(curves[arm])} |"
        )
    _save_figure(curves, Path(__file__).with_name("curves.png"))


def _record(store: Store, node: Node) -> Record:
    record = store.lookup(node.stage.name, node.fingerprint)
    if record is None:
        sys.exit(f"runs/store lacks {node.name}: run the command of this folder's README.md")
    return record


def _gain_cells(gain: Difference) -> str:
    return f"{100 * gain.mean:+.1f} | {100 * gain.low:+.1f} to {100 * gain.high:+.1f}"


def _fall(curves: list[Curve]) -> float:
    """The most, over seeds, that accuracy lay below an earlier validation's, in points."""
    values = [np.array(list(curve.values())) for curve in curves]
    return 100 * max(float((np.maximum.accumulate(v) - v).max()) for v in values)


def _spread(curves: list[Curve]) -> str:
    """Standard deviation around each run's own line, pooled over seeds, in points; chi-square."""
    residuals = [_around_line(curve) for curve in curves]
    freedom = sum(len(r) - 2 for r in residuals)
    total = float(sum((r**2).sum() for r in residuals))
    low, high = (np.sqrt(total / chi2.isf(tail, freedom)) for tail in (0.025, 0.975))
    return f"{100 * np.sqrt(total / freedom):.2f} | {100 * low:.2f} to {100 * high:.2f}"


def _around_line(curve: Curve) -> npt.NDArray[np.float64]:
    steps, values = np.array(list(curve)), np.array(list(curve.values()))
    residuals: npt.NDArray[np.float64] = values - np.polyval(np.polyfit(steps, values, 1), steps)
    return residuals


def _save_figure(curves: dict[str, list[Curve]], path: Path) -> None:
    figure = new_figure(9.0, 2.8)
    panels = figure.subplots(1, len(curves), sharey=True)
    for panel, (arm, runs) in zip(panels, curves.items(), strict=True):
        for seed, curve in zip(SEEDS, runs, strict=True):
            panel.plot(
                list(curve), [100 * v for v in curve.values()], color=COLOURS[seed], label=f"{seed}"
            )
        panel.set_title(arm, fontsize=9, color=INK, loc="left")
        panel.set_xlabel("step", fontsize=9, color=INK)
        style_axes(panel, "y")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, title="seed", loc="outside right center", frameon=False, fontsize=8
    )
    save_figure(figure, "pass@1 on 300 validation problems while GRPO trains, percent", path)


if __name__ == "__main__":
    main()
