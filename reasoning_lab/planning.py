"""What a run, or a sweep of runs, would make and what it would reuse; makes nothing.

Time and tokens come from artifacts of the same stage and model in the store: what they took
a row, times the rows that the node plans. Where there is none they are unknown.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from reasoning_lab.compose import Recipe
from reasoning_lab.models.footprint import Footprint, footprint
from reasoning_lab.recipe import Node
from reasoning_lab.schema import ModelConfig, StageConfig, TrainingConfig
from reasoning_lab.store import Artifact, Store

_NUMBERS = ("steps", "train tokens", "seconds")


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
        memory: What training takes on one device, for the known model families.
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
    memory: Footprint | None


def planned(recipes: Sequence[Recipe]) -> list[PlannedNode]:
    """Every node of every recipe, in the order in which they would run."""
    nodes: list[PlannedNode] = []
    states: dict[str, str] = {}
    stored: dict[str, list[Artifact]] = {}
    for recipe in recipes:
        runs = recipe.root.paths.runs
        store = Store(Path(runs) / "store")
        if runs not in stored:
            stored[runs] = list(store.artifacts())
        for node in recipe.nodes:
            repeated = node.fingerprint in states
            if not repeated:
                cached = store.lookup(node.folder, node.fingerprint) is not None
                states[node.fingerprint] = "cached" if cached else "run"
            rows = node.config.rows()
            like = _like(node, stored[runs])
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
                    memory=_memory(recipe.root.model, node.config),
                )
            )
    return nodes


def plan_table(nodes: Sequence[PlannedNode]) -> Table:
    """The nodes for a terminal; a node that an earlier recipe makes says so."""
    columns = ["stage", "fingerprint", "state", *_NUMBERS]
    if several := len({node.seed for node in nodes}) > 1:
        columns.insert(0, "seed")
    if varied := len({node.variant for node in nodes}) > 1:
        columns.insert(0, "variant")
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in columns:
        table.add_column(
            name.replace(" ", "\n"),
            justify="right" if name in _NUMBERS else "left",
            overflow="fold",
            no_wrap=name != "variant",
        )
    above = ""
    for node in nodes:
        cells = [node.stage, node.fingerprint[:8]]
        cells.append("shared" if node.repeated and node.state == "run" else node.state)
        cells += [_number(n) for n in (node.steps, node.train_tokens, node.wall_s)]
        cells = [str(node.seed), *cells] if several else cells
        # The name of a variant may be long, so only its first node bears it.
        variant, above = "" if node.variant == above else node.variant, node.variant
        table.add_row(*([variant, *cells] if varied else cells))
    return table


def memory_lines(nodes: Sequence[PlannedNode]) -> list[str]:
    """What training takes in memory, a line for each distinct size."""
    found: dict[Footprint, list[str]] = {}
    for node in nodes:
        if node.memory is not None and not node.repeated:
            stages = found.setdefault(node.memory, [])
            stages += [node.stage] if node.stage not in stages else []
    return [
        f"{', '.join(stages)}: {memory.parameters / 1e6:,.1f}M parameters; on one device about "
        f"{_size(memory.weights + memory.gradients)} of weights and gradients, "
        f"{_size(memory.optimizer)} of optimizer state, "
        f"{_size(memory.peak(1000) - memory.states)} for every 1,000 tokens "
        f"of a micro-batch{_with_copies(memory)}."
        for memory, stages in found.items()
    ]


def _with_copies(memory: Footprint) -> str:
    return f", {_size(memory.copies)} of frozen copies" if memory.copies else ""


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


def _memory(model: ModelConfig, stage: StageConfig) -> Footprint | None:
    """From the configured architecture, or the config of a local checkpoint."""
    if not isinstance(stage, TrainingConfig):
        return None
    architecture = model.architecture
    config = Path(model.path or "") / "config.json"
    if model.path is not None and config.is_file():
        architecture = json.loads(config.read_text(encoding="utf-8"))
    optimizer = str(stage.optimization.optimizer.get("_target_"))
    return footprint(
        architecture, model.vocab_size, model.dtype, optimizer, frozen=stage.frozen_copies()
    )


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


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"
