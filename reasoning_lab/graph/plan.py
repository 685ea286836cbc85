"""What a run would make and what it would reuse; makes nothing."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from reasoning_lab.graph.recipe import Node
from reasoning_lab.graph.record import Record
from reasoning_lab.graph.stage import Workload
from reasoning_lab.graph.store import Store


@dataclass(frozen=True, slots=True)
class NodeState:
    """Where one node stands.

    Attributes:
        node: The node.
        record: Of the artifact that would be reused; None = the node is to be made.
        repeated: True = an earlier node of the plan is the same and is made or reused for both.
        workload: How much it reads and writes when it is made.
    """

    node: Node
    record: Record | None
    repeated: bool
    workload: Workload


def plan(
    nodes: Iterable[Node], store: Store, known: dict[str, Record | None]
) -> Iterator[NodeState]:
    """The state of each node, in order.

    Args:
        nodes: Of one recipe.
        store: What exists.
        known: Records by fingerprint of the nodes that earlier recipes planned; those of this one
            are added, so that a sweep looks each up once.
    """
    for node in nodes:
        repeated = node.fingerprint in known
        if not repeated:
            known[node.fingerprint] = store.lookup(node.stage.name, node.fingerprint)
        yield NodeState(node, known[node.fingerprint], repeated, node.stage.workload())
