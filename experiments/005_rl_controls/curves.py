"""Rollouts, tokens, entropy and accuracy of GRPO by arm: a table, and a figure beside this file.

    python experiments/005_rl_controls/curves.py

in the folder whose `runs/` holds the sweep over the arms in conf/experiment/005_rl_controls. Means
and standard deviations are over seeds.
"""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from reasoning_lab.commands.schemas import register_schemas
from reasoning_lab.commands.sweep import recipes
from reasoning_lab.graph.record import Record
from reasoning_lab.graph.store import Store
from reasoning_lab.report.figures import COLOURS, INK, new_figure, save_figure, style_axes
from reasoning_lab.tracking.curves import read_history

ARMS = ("bare", "uniform", "rebalanced", "annealed", "controlled")
SEEDS = (0, 1, 2, 3, 4)
COLUMNS = (
    "arm | rollouts | groups trained | tokens trained | entropy, first tenth | last tenth |"
    " worst fall | spread | 95% interval"
)
Curve = dict[int, float]
History = dict[str, Curve]


def main() -> None:
    """Print the table and save the figure."""
    register_schemas()
    store = Store(Path("runs/store"))
    curves: dict[str, list[Curve]] = {}
    print(f"| {COLUMNS} |")
    print("| :-- " + "| --: " * COLUMNS.count("|") + "|")
    for arm in ARMS:
        records = [_record(store, arm, seed) for seed in SEEDS]
        histories = [read_history(record.path) for record in records]
        curves[arm] = [history["val/pass@1"] for history in histories]
        cells = (
            f"`{arm}`",
            f"{np.mean([record.metrics['rollouts'] for record in records]):,.0f}",
            f"{np.mean([_values(h, 'rollout/groups_trained').sum() for h in histories]):,.0f}",
            f"{np.mean([record.metrics['train_tokens'] for record in records]):,.0f}",
            *_entropies(histories),
            f"{_fall(curves[arm]):.1f}",
            _spread(curves[arm]),
        )
        print(f"| {' | '.join(cells)} |")
    _save_figure(curves, Path(__file__).with_name("curves.png"))


def _record(store: Store, arm: str, seed: int) -> Record:
    (recipe,) = recipes([f"experiment=005_rl_controls/{arm}", f"seed={seed}"])
    (node,) = (node for node in recipe.nodes if node.name == "rl")
    record = store.lookup(node.stage.name, node.fingerprint)
    if record is None:
        sys.exit(f"runs/store lacks seed {seed} of {arm}: run the command of this folder's page")
    return record


def _values(history: History, name: str) -> npt.NDArray[np.float64]:
    return np.array(list(history[name].values()))


def _entropies(histories: list[History]) -> list[str]:
    """Nats a token at temperature 1, in the first and in the last tenth of the steps."""
    parts = []
    for values in (_values(history, "rollout/entropy") for history in histories):
        tenth = max(len(values) // 10, 1)
        parts.append((values[:tenth].mean(), values[-tenth:].mean()))
    over_seeds = np.array(parts)
    return [
        f"{mean:.3f} ± {deviation:.3f}"
        for mean, deviation in zip(over_seeds.mean(0), over_seeds.std(0, ddof=1), strict=True)
    ]


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
