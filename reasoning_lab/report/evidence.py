"""What stands behind a report's numbers: rollouts, curves, the graph and the config.

Read from finished artifacts, for the page that people open (`page.py`).
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
MOST_ROLLOUTS = 10_000
_MOST_POINTS = 400


@dataclass(frozen=True, slots=True)
class Completions:
    """An evaluation's folder and what its rollouts are filtered by.

    Attributes:
        folder: The artifact's.
        about: `variant`, `seed`, `stage` and `benchmark`.
    """

    folder: Path
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A node as a reader sees it.

    Attributes:
        name: In the recipe.
        fingerprint: Of its artifact.
        inputs: Fingerprints of what it was made from.
        wall_s: Seconds that it took; None = not known.
        ledger: What came in, went out and was dropped, as `Ledger.as_json` has it.
    """

    name: str
    fingerprint: str
    inputs: Sequence[str]
    wall_s: float | None
    ledger: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(slots=True)
class Evidence:
    """Of one recipe or several.

    Attributes:
        completions: One an evaluation.
        policies: Folder of each trained policy, by what its curves are called.
        nodes: The graph, each node once, makers before what they made.
        configs: Each recipe's config as YAML, by its title.
    """

    completions: list[Completions] = field(default_factory=list)
    policies: dict[str, Path] = field(default_factory=dict)
    nodes: dict[str, GraphNode] = field(default_factory=dict)
    configs: dict[str, str] = field(default_factory=dict)

    def ledger_cells(self) -> list[list[str]]:
        """Rows of a table with `LEDGER_COLUMNS`, one a stage and unit."""
        return [
            [node.name, *cells]
            for node in self.nodes.values()
            for cells in Ledger.of(node.ledger).cells()
        ]

    def ledgers(self) -> list[dict[str, Any]]:
        """The counts of each stage and unit, for programs."""
        return [
            {"stage": node.name, "fingerprint": node.fingerprint, "unit": unit, **counts}
            for node in self.nodes.values()
            for unit, counts in node.ledger.items()
        ]

    def rollouts(self) -> dict[str, Any]:
        """Sources, prompts and rollouts, each text once; at most 10,000 rollouts in all."""
        sources: list[dict[str, Any]] = []
        prompts: dict[str, tuple[int, dict[str, str]]] = {}
        rows: list[list[Any]] = []
        most = max(1, MOST_ROLLOUTS // max(len(self.completions), 1))
        for number, completions in enumerate(self.completions):
            sources.append(dict(completions.about))
            for rollout in subsample_rollouts(completions.folder / COMPLETIONS, most):
                problem = rollout.problem
                place, _ = prompts.setdefault(
                    problem.id,
                    (
                        len(prompts),
                        {"prompt": problem.prompt, "gold": problem.gold, "family": problem.family},
                    ),
                )
                text, tokens = rollout.completion.text, len(rollout.completion.token_ids)
                rows.append([number, place, text, rollout.answer, str(rollout.verdict), tokens])
        return {"sources": sources, "prompts": [p for _, p in prompts.values()], "rollouts": rows}

    def curves(self) -> list[dict[str, Any]]:
        """Every metric of every policy that has a history, thinned to 400 points a curve."""
        found = []
        for label, folder in self.policies.items():
            for metric, values in read_history(folder).items():
                points = [[step, value] for step, value in values.items() if value == value]
                every = -(-len(points) // _MOST_POINTS)
                if points:
                    found.append({"metric": metric, "label": label, "points": points[::every]})
        return sorted(found, key=lambda curve: (curve["metric"] != "train/loss", curve["metric"]))
