"""What a node takes, by what similar ones took.

Similar are artifacts of the store that differ from the node in their budget alone, with a tenth to
ten times its rows. What they took a row, times the rows that the node plans, are its bounds: the
least and the most of them. Time is compared on the same kind of devices alone.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from reasoning_lab.graph.recipe import Node
from reasoning_lab.graph.record import Record, fingerprint
from reasoning_lab.graph.stage import Stage
from reasoning_lab.graph.store import Store
from reasoning_lab.models.bounds import Bounds
from reasoning_lab.tracking.progress import RunPosition
from reasoning_lab.training.stage import TrainingStage

# What a budget is: it says how many rows there are, and not what one of them costs.
_BUDGET_KEYS = frozenset(
    ("length", "batch_size", "count", "validation", "learning_rate", "schedule")
)
_MOST_TIMES_ROWS = 10
# What an artifact took; None = it does not say.
Amount = Callable[[Record], float | None]


def seconds_on(kind: str) -> Amount:
    """Seconds that it took, if it was made on this kind of devices; see `HardwareConfig.kind`."""

    def seconds(record: Record) -> float | None:
        metrics = record.metrics
        return metrics.get("wall_s") if metrics.get("hardware") == kind else None

    return seconds


def train_tokens(record: Record) -> float | None:
    """Tokens that it trained on."""
    return record.metrics.get("train_tokens")


def written_tokens(record: Record) -> float | None:
    """Tokens of the completions that it holds."""
    mean = record.metrics.get("completion_tokens")
    return None if mean is None else mean * record.metrics["planned_rows"]


def file_bytes(record: Record) -> float:
    """Of all its files."""
    return sum(file.bytes for file in record.files.values())


class Costs:
    """What artifacts took, by which the cost of a node is estimated.

    Args:
        artifacts: Of a store.
    """

    def __init__(self, artifacts: Iterable[Record]) -> None:
        self._exact: dict[tuple[str, str], Record] = {}
        # By stage and work a row.
        self._alike: dict[tuple[str, str], list[Record]] = {}
        for artifact in artifacts:
            self.add(artifact)

    def add(self, artifact: Record) -> None:
        """Take an artifact into account, if it says how many rows it took."""
        if artifact.metrics.get("planned_rows"):
            self._exact[artifact.stage, artifact.fingerprint] = artifact
            alike = (artifact.stage, _work_of_a_row(artifact.identity))
            self._alike.setdefault(alike, []).append(artifact)

    def expected(self, node: Node, amount: Amount, rows: int | None) -> Bounds | None:
        """What `rows` rows of the node take; None = unknown, or too far from what was measured."""
        exact = self._exact.get((node.stage.name, node.fingerprint))
        if exact is not None:
            value = amount(exact)
            return Bounds.exactly(value) if value else None
        of_a_row = []
        for record in self._alike.get((node.stage.name, _work_of_a_row(node.identity)), []):
            measured_rows, value = record.metrics["planned_rows"], amount(record)
            if rows and value and _are_like(rows, measured_rows):
                of_a_row.append(value / measured_rows)
        if not of_a_row or rows is None:
            return None
        least, most = (round(rows * value, 3) for value in (min(of_a_row), max(of_a_row)))
        return Bounds(least, most, extrapolated=True)

    def expected_s(self, node: Node, kind: str) -> float | None:
        """Seconds in which the node is made on this kind of devices; None = unknown."""
        return _middle(self.expected(node, seconds_on(kind), at_most(node).workload().rows))


def _are_like(rows: int, measured_rows: int) -> bool:
    return max(rows, measured_rows) <= _MOST_TIMES_ROWS * min(rows, measured_rows)


def _middle(bounds: Bounds | None) -> float | None:
    if bounds is None or bounds.least is None or bounds.most is None:
        return None
    return (bounds.least + bounds.most) / 2


def position_in_run(
    node: Node, nodes: Sequence[Node], store: Store, costs: Costs, kind: str
) -> RunPosition:
    """Which of the run's `nodes` it is, and how long those after it are expected to take."""
    step = 1 + [other.fingerprint for other in nodes].index(node.fingerprint)
    later = [
        costs.expected_s(other, kind)
        for other in nodes[step:]
        if store.record(other.stage.name, other.fingerprint) is None
    ]
    return RunPosition(
        step=step,
        steps=len(nodes),
        later_s=sum(seconds for seconds in later if seconds is not None),
        later_unknown=later.count(None),
    )


def at_most(node: Node) -> Stage:
    """The stage with its length in steps, as far as the configs before it bound these."""
    if not isinstance(node.stage, TrainingStage):
        return node.stage
    return node.stage.at_most(input_rows(node))


def input_rows(node: Node) -> dict[str, int | None]:
    """Rows of each input's artifact at most, by its kind; None = unknown."""
    # Of each node once, although many later ones may have it as an input.
    rows: dict[str, int | None] = {}

    def output_rows(maker: Node) -> int | None:
        if maker.fingerprint not in rows:
            inputs = {kind: output_rows(source) for kind, source in maker.inputs.items()}
            rows[maker.fingerprint] = maker.stage.output_rows(inputs)
        return rows[maker.fingerprint]

    return {kind: output_rows(maker) for kind, maker in node.inputs.items()}


def _work_of_a_row(identity: Mapping[str, Any]) -> str:
    """A name of all that decides what a row takes: the identity without its budget."""
    work = {key: identity[key] for key in ("config", "groups")}
    return fingerprint({"work": _without_budget(work)})


def _without_budget(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_budget(v) for k, v in value.items() if k not in _BUDGET_KEYS}
    return value
