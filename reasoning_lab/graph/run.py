"""Make the nodes of a graph, in order: what the store has is reused, what it lacks is made.

`plan` says which is which, and makes nothing.

How a node is made, and who is told of it, come from above: the graph launches and tracks nothing.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from reasoning_lab.graph.recipe import Node
from reasoning_lab.graph.record import Metadata, Record
from reasoning_lab.graph.store import Store
from reasoning_lab.system.files import write_atomically


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stage says of the folder that it filled.

    Attributes:
        metrics: Its results.
        ledger: What came in, went out and was dropped, as `Ledger.as_json` has it.
        versions: Package -> version that ran.
    """

    metrics: Mapping[str, Any]
    ledger: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Work:
    """A node that is being made.

    Attributes:
        node: The node.
        inputs: What is written down of its inputs, by kind.
        out_dir: Empty folder that becomes the artifact.
        work_dir: Folder that outlives a failure or a kill.
    """

    node: Node
    inputs: Mapping[str, Record]
    out_dir: Path
    work_dir: Path


class Observer(Protocol):
    """Who is told how far a run is."""

    def started(self, node: Node) -> None:
        """The store lacks the node, and it begins to be made."""

    def finished(self, node: Node, record: Record, reused: bool) -> None:
        """The node's artifact is in the store; True = it was there already."""


def run(
    nodes: Sequence[Node], store: Store, execute: Callable[[Work], Outcome], observe: Observer
) -> dict[str, Record]:
    """Obtain every node, each behind its inputs; the records by fingerprint.

    `execute` makes one node, by filling `out_dir`.
    """
    records: dict[str, Record] = {}
    for node in nodes:
        inputs = {kind: records[maker.fingerprint] for kind, maker in node.inputs.items()}

        def build(
            out_dir: Path, work_dir: Path, node: Node = node, inputs: Mapping[str, Record] = inputs
        ) -> Metadata:
            observe.started(node)
            return _build(Work(node, inputs, out_dir, work_dir), execute)

        record, reused = store.obtain(node.stage.name, node.fingerprint, build)
        records[node.fingerprint] = record
        observe.finished(node, record, reused)
    return records


class NodeState(NamedTuple):
    """Where one node stands.

    Attributes:
        node: The node.
        record: Of the artifact that would be reused; None = the node is to be made.
        repeated: True = an earlier node of the plan is the same and is made or reused for both.
    """

    node: Node
    record: Record | None
    repeated: bool


def plan(
    nodes: Iterable[Node], store: Store, known: dict[str, Record | None]
) -> Iterator[NodeState]:
    """The state of each node, in order.

    `known` has the records, by fingerprint, of nodes that were planned before. Those of `nodes` are
    added, so that a sweep looks each up once.
    """
    for node in nodes:
        repeated = node.fingerprint in known
        if not repeated:
            known[node.fingerprint] = store.lookup(node.stage.name, node.fingerprint)
        yield NodeState(node, known[node.fingerprint], repeated)


def _build(work: Work, execute: Callable[[Work], Outcome]) -> Metadata:
    node, clock = work.node, Clock(work.work_dir)
    try:
        outcome = execute(work)
    finally:
        clock.stop()
    return Metadata(
        kind=node.produces.kind,
        identity=node.identity,
        inputs={kind: record.fingerprint for kind, record in work.inputs.items()},
        seed=node.identity["seed"],
        metrics={
            # A stage whose data decided how much it read says so itself.
            "planned_rows": node.stage.workload().rows,
            **outcome.metrics,
            "wall_s": clock.seconds,
        },
        ledger=outcome.ledger,
        versions=outcome.versions,
    )


class Clock:
    """Seconds spent on a node over all attempts; of a killed one, until it last saved something.

    `seconds.txt` in the node's `work_dir` holds the sum as of the file's own date.
    """

    def __init__(self, work_dir: Path) -> None:
        self._file = work_dir / "seconds.txt"
        self._before = 0.0
        if self._file.exists():
            written = self._file.stat().st_mtime
            saved = max(entry.stat().st_mtime for entry in work_dir.rglob("*"))
            self._before = float(self._file.read_text()) + saved - written
        self._started = time.monotonic()
        self._write(self._before)

    @property
    def seconds(self) -> float:
        """So far."""
        return self._before + time.monotonic() - self._started

    def stop(self) -> None:
        """Write down the seconds so far."""
        self._write(self.seconds)

    def _write(self, seconds: float) -> None:
        write_atomically(self._file, lambda draft: draft.write_text(str(seconds)))
