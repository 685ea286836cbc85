"""The evidence for a report's numbers: rollouts, training curves, the graph and the config.

It is read from finished artifacts, for the HTML page (`page.py`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reasoning_lab.data.corpus import subsample_rollouts
from reasoning_lab.evaluate.completions import COMPLETIONS
from reasoning_lab.graph.ledger import TABLE_COLUMNS, Ledger
from reasoning_lab.report.overlap import PromptOverlap
from reasoning_lab.tracking.curves import in_order, points_of, read_history

LEDGER_COLUMNS = ("stage", *TABLE_COLUMNS)
MAX_ROLLOUTS = 10_000


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
class Training:
    """A policy that was trained.

    Attributes:
        folder: The artifact's folder.
        labels: `variant`, `seed` and `stage`.
    """

    folder: Path
    labels: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A node of the graph, as the page shows it.

    Attributes:
        name: Its name in the recipe, with the seed.
        fingerprint: Its artifact's fingerprint.
        inputs: Fingerprints of its input artifacts.
        wall_s: Seconds that it took; None = unknown.
        ledger: Counts of inputs, outputs and drops, in the form of `Ledger.as_json`.
        overlap: Its prompts that earlier stages trained on; None = it has none, or is the first.
        finished_at: When it was done, ISO 8601 in UTC; None = unknown, as all below.
        hardware: On what it ran.
        commit: Of the lab's code.
        versions: Package -> version that ran.
        variant: The first one that has it, in words.
    """

    name: str
    fingerprint: str
    inputs: Sequence[str]
    wall_s: float | None
    ledger: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    overlap: PromptOverlap | None = None
    finished_at: str | None = None
    hardware: str | None = None
    commit: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    variant: str = ""


@dataclass(slots=True)
class Evidence:
    """The evidence of one recipe or several.

    Attributes:
        completions: One entry for each evaluation.
        trainings: One entry for each trained policy.
        nodes: Fingerprint to node; each node once, inputs first.
        configs: Title to each recipe's config as YAML.
        commands: The command of each recipe.
    """

    completions: list[Completions] = field(default_factory=list)
    trainings: list[Training] = field(default_factory=list)
    nodes: dict[str, GraphNode] = field(default_factory=dict)
    configs: dict[str, str] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)

    def node_names(self) -> dict[str, str]:
        """Each node's name by fingerprint, with its variant where several have that name."""
        counts = Counter(node.name for node in self.nodes.values())
        return {
            fingerprint: node.name if counts[node.name] == 1 else f"{node.name}, {node.variant}"
            for fingerprint, node in self.nodes.items()
        }

    def ledger_cells(self) -> list[list[str]]:
        """Rows of a table with `LEDGER_COLUMNS`, one for each stage and unit."""
        names = self.node_names()
        return [
            [names[node.fingerprint], *cells]
            for node in self.nodes.values()
            for cells in Ledger.of(node.ledger).cells()
        ]

    def ledgers(self) -> list[dict[str, Any]]:
        """The counts of each stage and unit, for `report.json`."""
        names = self.node_names()
        return [
            {"stage": names[fingerprint], "fingerprint": fingerprint, "unit": unit, **counts}
            for fingerprint, node in self.nodes.items()
            for unit, counts in node.ledger.items()
        ]

    def overlap_sentences(self) -> list[str]:
        """How many prompts of each stage were trained on before it."""
        names = self.node_names()
        return [
            node.overlap.sentence(names[fingerprint])
            for fingerprint, node in self.nodes.items()
            if node.overlap is not None
        ]

    def overlaps(self) -> list[dict[str, Any]]:
        """The same in numbers, for `report.json`."""
        names = self.node_names()
        return [
            {"stage": names[fingerprint], "fingerprint": fingerprint, **asdict(node.overlap)}
            for fingerprint, node in self.nodes.items()
            if node.overlap is not None
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
                            "domain": problem.domain,
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
        """Every metric of every policy that has a history, thinned to some 400 points a curve."""
        curves = []
        for training in self.trainings:
            history = read_history(training.folder)
            points = {metric: points_of(history[metric]) for metric in in_order(history)}
            if metrics := {metric: line for metric, line in points.items() if line}:
                curves.append({**training.labels, "metrics": metrics})
        return curves
