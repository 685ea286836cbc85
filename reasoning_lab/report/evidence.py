"""The evidence for a report's numbers: rollouts, training curves, the graph and the config.

It is read from finished artifacts, for the HTML page (`page.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reasoning_lab.data.corpus import subsample_rollouts
from reasoning_lab.evaluate.completions import COMPLETIONS
from reasoning_lab.graph.ledger import TABLE_COLUMNS, Ledger
from reasoning_lab.tracking.history import read_history

LEDGER_COLUMNS = ("stage", *TABLE_COLUMNS)
MAX_ROLLOUTS = 10_000
_MAX_CURVE_POINTS = 400


@dataclass(frozen=True, slots=True)
class Completions:
    """An evaluation's folder, and the labels by which the page filters its rollouts.

    Attributes:
        folder: The artifact's folder.
        labels: `variant`, `seed`, `stage` and `benchmark`.
    """

    folder: Path
    labels: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A node of the graph, as the page shows it.

    Attributes:
        name: Its name in the recipe.
        fingerprint: Its artifact's fingerprint.
        inputs: Fingerprints of its input artifacts.
        wall_s: Seconds that it took; None = unknown.
        ledger: Counts of inputs, outputs and drops, in the form of `Ledger.as_json`.
    """

    name: str
    fingerprint: str
    inputs: Sequence[str]
    wall_s: float | None
    ledger: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(slots=True)
class Evidence:
    """The evidence of one recipe or several.

    Attributes:
        completions: One entry for each evaluation.
        policies: Label of the curves to the folder of each trained policy.
        nodes: Fingerprint to node; each node once, inputs first.
        configs: Title to each recipe's config as YAML.
    """

    completions: list[Completions] = field(default_factory=list)
    policies: dict[str, Path] = field(default_factory=dict)
    nodes: dict[str, GraphNode] = field(default_factory=dict)
    configs: dict[str, str] = field(default_factory=dict)

    def ledger_cells(self) -> list[list[str]]:
        """Rows of a table with `LEDGER_COLUMNS`, one for each stage and unit."""
        return [
            [node.name, *cells]
            for node in self.nodes.values()
            for cells in Ledger.of(node.ledger).cells()
        ]

    def ledgers(self) -> list[dict[str, Any]]:
        """The counts of each stage and unit, for `report.json`."""
        return [
            {"stage": node.name, "fingerprint": node.fingerprint, "unit": unit, **counts}
            for node in self.nodes.values()
            for unit, counts in node.ledger.items()
        ]

    def rollouts(self) -> dict[str, Any]:
        """Sources, prompts and rollouts, each prompt once; at most 10,000 rollouts in total."""
        sources: list[dict[str, Any]] = []
        prompts: dict[str, tuple[int, dict[str, str]]] = {}
        rows: list[list[Any]] = []
        max_per_evaluation = max(1, MAX_ROLLOUTS // max(len(self.completions), 1))
        for number, completions in enumerate(self.completions):
            sources.append(dict(completions.labels))
            for rollout in subsample_rollouts(completions.folder / COMPLETIONS, max_per_evaluation):
                problem = rollout.problem
                prompt_index, _ = prompts.setdefault(
                    problem.id,
                    (
                        len(prompts),
                        {
                            "prompt": problem.transcript,
                            "gold": problem.gold,
                            "family": problem.family,
                        },
                    ),
                )
                text, tokens = rollout.completion.text, len(rollout.completion.token_ids)
                rows.append(
                    [number, prompt_index, text, rollout.answer, str(rollout.verdict), tokens]
                )
        return {"sources": sources, "prompts": [p for _, p in prompts.values()], "rollouts": rows}

    def curves(self) -> list[dict[str, Any]]:
        """Every metric of every policy that has a history, thinned to 400 points per curve."""
        curves = []
        for label, folder in self.policies.items():
            for metric, values in read_history(folder).items():
                points = [[step, value] for step, value in values.items() if value == value]
                stride = -(-len(points) // _MAX_CURVE_POINTS)
                if points:
                    curves.append({"metric": metric, "label": label, "points": points[::stride]})
        return sorted(curves, key=lambda curve: (curve["metric"] != "train/loss", curve["metric"]))
