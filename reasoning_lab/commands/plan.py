"""What a run, or a sweep of runs, would make and what it would reuse; makes nothing.

Each figure has two bounds: `prices.py` has what a node costs, `requirements.py` what it takes of a
machine. They come from artifacts of the store that are alike, else from the configs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reasoning_lab.commands.compose import Recipe
from reasoning_lab.commands.estimates import Costs
from reasoning_lab.commands.prices import NodeConfig, Price, price
from reasoning_lab.commands.requirements import Requirements, memory_of, requirements
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.record import Record
from reasoning_lab.graph.run import NodeState, plan
from reasoning_lab.graph.store import Store
from reasoning_lab.models.footprint import Footprint
from reasoning_lab.training.stage import TrainingStage


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
        steps: Optimizer steps; None = it is no training, or nothing says how many.
        at_most: True = rows, steps and what is estimated from them are bounds: the length is in
            epochs or tokens, and the data decides how many steps these are.
        memory: What training takes of a device, for the known model families.
        price: Tokens, time and money.
        needs: Memory and disk.
        warnings: What the artifact that is reused dropped much of.
    """

    stage: str
    variant: str
    seed: int
    fingerprint: str
    state: str
    repeated: bool
    rows: int | None
    steps: int | None
    at_most: bool
    memory: Footprint | None
    price: Price
    needs: Requirements
    warnings: Sequence[str]


def planned(recipes: Sequence[Recipe]) -> list[PlannedNode]:
    """Every node of every recipe, in the order in which they would run."""
    nodes: list[PlannedNode] = []
    records: dict[str, Record | None] = {}
    stored: dict[str, Costs] = {}
    for recipe in recipes:
        runs = recipe.root.paths.runs
        store = Store(Path(runs) / "store")
        if runs not in stored:
            stored[runs] = Costs(store.artifacts())
        nodes += [
            _planned_node(state, recipe, stored[runs])
            for state in plan(recipe.nodes, store, records)
        ]
    return nodes


def _planned_node(state: NodeState, recipe: Recipe, costs: Costs) -> PlannedNode:
    config = NodeConfig(state.node, recipe.root)
    stage, memory = config.stage, memory_of(config)
    return PlannedNode(
        stage=state.node.name,
        variant=recipe.variant,
        seed=recipe.root.seed,
        fingerprint=state.node.fingerprint,
        state="run" if state.record is None else "cached",
        repeated=state.repeated,
        rows=config.work.rows,
        steps=stage.optimization.planned_steps if isinstance(stage, TrainingStage) else None,
        at_most=config.is_bound,
        memory=memory,
        price=price(config, costs),
        needs=requirements(config, memory, state.record, costs),
        warnings=[] if state.record is None else Ledger.of(state.record.ledger).warnings(),
    )
