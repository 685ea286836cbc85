"""How long a node takes, by what similar ones took.

Similar are artifacts of the store that differ from the node in their budget alone: what they took a
row, times the rows that the node plans, if these are at most ten times as many.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reasoning_lab.graph.recipe import Node
from reasoning_lab.graph.record import Record, fingerprint
from reasoning_lab.graph.stage import Stage
from reasoning_lab.graph.store import Store
from reasoning_lab.tracking.progress import RunPosition
from reasoning_lab.training.stage import TrainingStage

# What a budget is: it says how many rows there are, and not what one of them costs.
_BUDGET_KEYS = frozenset(
    ("length", "batch_size", "count", "validation", "learning_rate", "schedule")
)
_MOST_TIMES_ROWS = 10


class Costs:
    """What artifacts took, by which the cost of a node is estimated.

    Args:
        artifacts: Of a store.
    """

    def __init__(self, artifacts: Iterable[Record]) -> None:
        # By stage and fingerprint, and one by stage and work a row.
        self._records: dict[tuple[str, str], Record] = {}
        for artifact in artifacts:
            self.add(artifact)

    def add(self, artifact: Record) -> None:
        """Take an artifact into account, if it says how many rows it took."""
        rows = artifact.metrics.get("planned_rows")
        if not rows:
            return
        self._records[artifact.stage, artifact.fingerprint] = artifact
        alike = (artifact.stage, _work_of_a_row(artifact.identity))
        # Of several, the one with the most work: start-up counts least in it.
        if alike not in self._records or rows > self._records[alike].metrics["planned_rows"]:
            self._records[alike] = artifact

    def expected(self, node: Node, metric: str, rows: int | None) -> int | None:
        """What `rows` rows of the node take; None = unknown, or too far from what was measured."""
        exact = self._records.get((node.stage.name, node.fingerprint))
        like = exact or self._records.get((node.stage.name, _work_of_a_row(node.identity)))
        if like is None or rows is None or not like.metrics.get(metric):
            return None
        measured_rows = int(like.metrics["planned_rows"])
        if rows > _MOST_TIMES_ROWS * measured_rows:
            return None
        return round(float(like.metrics[metric]) * rows / measured_rows)

    def expected_s(self, node: Node) -> int | None:
        """Seconds in which the node is made; None = unknown."""
        return self.expected(node, "wall_s", at_most(node).workload().rows)


def position_in_run(
    node: Node, nodes: Sequence[Node], store: Store, costs: Costs, log_file: Path
) -> RunPosition:
    """Which of the run's `nodes` it is, and how long those after it are expected to take."""
    step = 1 + [other.fingerprint for other in nodes].index(node.fingerprint)
    later = [
        costs.expected_s(other)
        for other in nodes[step:]
        if store.record(other.stage.name, other.fingerprint) is None
    ]
    return RunPosition(
        step=step,
        steps=len(nodes),
        later_s=sum(seconds for seconds in later if seconds is not None),
        later_unknown=later.count(None),
        log_file=log_file,
    )


def at_most(node: Node) -> Stage:
    """The stage with its length in steps, as far as the configs before it bound these."""
    if not isinstance(node.stage, TrainingStage):
        return node.stage
    return node.stage.at_most(_input_rows(node))


def _input_rows(node: Node) -> dict[str, int | None]:
    """Rows of each input's artifact at most, by its kind; None = unknown."""
    inputs = node.inputs.items()
    return {kind: maker.stage.output_rows(_input_rows(maker)) for kind, maker in inputs}


def _work_of_a_row(identity: Mapping[str, Any]) -> str:
    """A name of all that decides what a row takes: the identity without its budget."""
    work = {key: identity[key] for key in ("config", "groups")}
    return fingerprint({"work": _without_budget(work)})


def _without_budget(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_budget(v) for k, v in value.items() if k not in _BUDGET_KEYS}
    return value
