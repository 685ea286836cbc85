"""What a run, or a sweep of runs, would make and what it would reuse; makes nothing.

Time and tokens come from artifacts of the same stage and model in the store: what they took
a row, times the rows that the node plans. Where there is none they are unknown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from reasoning_lab.compose import Recipe
from reasoning_lab.recipe import Node
from reasoning_lab.store import Artifact, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedNode:
    """One node of one recipe.

    Attributes:
        stage: Its name in the recipe.
        variant: The recipe's.
        seed: The recipe's.
        fingerprint: Of the artifact.
        state: cached, or run.
        repeated: True = an earlier recipe of the sweep has the same node and makes it.
        rows: That it trains on or samples; None = unknown.
        steps: Optimizer steps; None = it is no training.
        train_tokens: Estimated; None = unknown.
        wall_s: Estimated seconds; None = unknown.
    """

    stage: str
    variant: str
    seed: int
    fingerprint: str
    state: str
    repeated: bool
    rows: int | None
    steps: int | None
    train_tokens: int | None
    wall_s: float | None

    def as_json(self) -> dict[str, Any]:
        """The node under its names in the command's JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def planned(recipes: Sequence[Recipe]) -> list[PlannedNode]:
    """Every node of every recipe, in the order in which they would run."""
    nodes: list[PlannedNode] = []
    states: dict[str, str] = {}
    for recipe in recipes:
        store = Store(Path(recipe.root.paths.runs) / "store")
        measured = list(store.artifacts())
        for node in recipe.nodes:
            repeated = node.fingerprint in states
            if not repeated:
                cached = store.lookup(node.folder, node.fingerprint) is not None
                states[node.fingerprint] = "cached" if cached else "run"
            rows = node.config.rows()
            like = _like(node, measured)
            optimization = getattr(node.config, "optimization", None)
            nodes.append(
                PlannedNode(
                    stage=node.name,
                    variant=recipe.variant,
                    seed=recipe.root.seed,
                    fingerprint=node.fingerprint,
                    state=states[node.fingerprint],
                    repeated=repeated,
                    rows=rows,
                    steps=optimization.steps if optimization else None,
                    train_tokens=_scaled(like, "train_tokens", rows),
                    wall_s=_scaled(like, "wall_s", rows),
                )
            )
    return nodes


def plan_table(nodes: Sequence[PlannedNode]) -> Table:
    """The nodes for a terminal; a node that an earlier recipe makes says so."""
    columns = ["stage", "fingerprint", "state", "steps", "rows", "train tokens", "seconds"]
    if several := len({node.seed for node in nodes}) > 1:
        columns.insert(0, "seed")
    if varied := len({node.variant for node in nodes}) > 1:
        columns.insert(0, "variant")
    table = Table(*columns)
    for node in nodes:
        cells = [node.stage, node.fingerprint]
        cells.append("shared" if node.repeated and node.state == "run" else node.state)
        cells += [_number(n) for n in (node.steps, node.rows, node.train_tokens, node.wall_s)]
        cells = [str(node.seed), *cells] if several else cells
        table.add_row(*([node.variant, *cells] if varied else cells))
    return table


def summary(nodes: Sequence[PlannedNode]) -> str:
    """How many distinct artifacts would be made and reused, and how long that takes."""
    distinct = [node for node in nodes if not node.repeated]
    to_run = [node for node in distinct if node.state == "run"]
    known = [node.wall_s for node in to_run if node.wall_s is not None]
    line = f"{len(to_run)} to make, {len(distinct) - len(to_run)} to reuse"
    if len(nodes) > len(distinct):
        line += f", {len(nodes) - len(distinct)} shared between runs"
    if known:
        line += f"; about {sum(known) / 60:.0f} min"
    if unknown := len(to_run) - len(known):
        line += f"{' and' if known else ';'} {unknown} whose time nothing in the store tells"
    return line + "."


def _like(node: Node, artifacts: Sequence[Artifact]) -> Artifact | None:
    """An artifact whose cost says what the node's will be: its own, or a similar one."""
    similar = [
        artifact
        for artifact in artifacts
        if artifact.stage == node.folder
        and artifact.metrics.get("planned_rows")
        and artifact.identity["groups"].get("model") == node.identity["groups"].get("model")
    ]
    own = [artifact for artifact in similar if artifact.fingerprint == node.fingerprint]
    # Of several, the one with the most work: start-up counts least in it.
    return max(own or similar, key=lambda each: each.metrics["planned_rows"], default=None)


def _scaled(like: Artifact | None, metric: str, rows: int | None) -> int | None:
    if like is None or rows is None or metric not in like.metrics:
        return None
    return round(float(like.metrics[metric]) * rows / int(like.metrics["planned_rows"]))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"
