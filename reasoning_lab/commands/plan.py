"""What a run, or a sweep of runs, would make and what it would reuse; makes nothing.

Time and tokens are estimated from artifacts of the store (`estimates.py`). Where there is none that
is alike, what the configs bound is told instead: tokens, memory and arithmetic at most, and about
how many hours that arithmetic takes on a known device.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reasoning_lab.commands.compose import Recipe
from reasoning_lab.commands.estimates import Costs, at_most
from reasoning_lab.commands.root_config import RootConfig
from reasoning_lab.config.hardware import SHARDED, HardwareConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.record import Record
from reasoning_lab.graph.run import NodeState, plan
from reasoning_lab.graph.stage import Stage, Workload
from reasoning_lab.graph.store import Store
from reasoning_lab.models.cost import (
    ASSUMED_MFU,
    DEVICES,
    forward_flops,
    generation_s,
    training_flops,
    training_s,
)
from reasoning_lab.models.footprint import (
    Footprint,
    cache_bytes,
    footprint,
    is_known,
    weight_bytes,
)
from reasoning_lab.training.stage import TrainingStage
from reasoning_lab.types import Sequences


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a node takes at most, by its config.

    Attributes:
        train_tokens: Trained on; None = its data decides.
        written_tokens: Of completions; prompts are not counted. None = it writes none.
        flops: Of training on the one and writing the other.
        device_bytes: Most that a device holds at once.
        hours: About, of those tokens; no bound, as how fast a device trains is assumed and what
            generation waits for is left out. None = the device is not known.
        mfu: Share of the device's peak that they assume of training.
    """

    train_tokens: int | None
    written_tokens: int | None
    flops: float
    device_bytes: int
    hours: float | None
    mfu: float


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
        train_tokens: Estimated; None = unknown.
        wall_s: Estimated seconds; None = unknown.
        memory: What training takes, for the known model families.
        bounds: Tokens, arithmetic and hours at most, for the same; None = its config bounds none.
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
    train_tokens: int | None
    wall_s: float | None
    memory: Footprint | None
    bounds: Bounds | None
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
            _priced(state, recipe, stored[runs]) for state in plan(recipe.nodes, store, records)
        ]
    return nodes


def _priced(state: NodeState, recipe: Recipe, costs: Costs) -> PlannedNode:
    node = state.node
    stage = at_most(node)
    workload = stage.workload()
    rows = workload.rows
    memory = _memory(recipe.root, stage, workload)
    return PlannedNode(
        stage=node.name,
        variant=recipe.variant,
        seed=recipe.root.seed,
        fingerprint=node.fingerprint,
        state="run" if state.record is None else "cached",
        repeated=state.repeated,
        rows=rows,
        steps=_steps(stage),
        at_most=stage is not node.stage,
        train_tokens=costs.expected(node, "train_tokens", rows),
        wall_s=costs.expected(node, "wall_s", rows),
        memory=memory,
        bounds=_bounds(recipe.root, workload, memory),
        warnings=[] if state.record is None else Ledger.of(state.record.ledger).warnings(),
    )


def _steps(stage: Stage) -> int | None:
    return stage.optimization.planned_steps if isinstance(stage, TrainingStage) else None


def _memory(root: RootConfig, stage: Stage, work: Workload) -> Footprint | None:
    if not isinstance(stage, TrainingStage):
        return None
    architecture = _architecture(root.model)
    vocab = architecture["vocab_size"]
    memory = footprint(
        architecture,
        vocab,
        root.model.dtype,
        stage.optimization.optimizer.target,
        root.hardware,
        stage.frozen_copies(),
        lora_rank=root.model.adapter.rank if root.model.adapter else None,
        packed=work.trained is not None and work.trained.packed,
    )
    sampled = root.hardware.strategy in SHARDED or root.model.dtype == "mixed"
    if memory is None or not sampled or not work.written:
        return memory
    # What samples is whole on every device.
    whole = weight_bytes(architecture, vocab, root.model.sampling_dtype)
    return replace(memory, copies=memory.copies + whole)


def _bounds(root: RootConfig, work: Workload, memory: Footprint | None) -> Bounds | None:
    device = DEVICES.get(root.hardware.gpu_model or "")
    architecture = _architecture(root.model)
    vocab = architecture["vocab_size"]
    dtype = root.model.sampling_dtype
    trained, written = work.trained, work.written
    if not is_known(architecture) or not (trained or written):
        return None
    devices = root.hardware.world_size
    together = root.hardware.generation_batch_size
    flops, seconds, state_bytes, added = 0.0, 0.0, memory.states if memory else 0, [0]
    if trained and memory:
        flops = training_flops(architecture, vocab, trained.rows, trained.tokens)
        added.append(memory.peak(_at_once(trained, root.hardware) * trained.tokens) - state_bytes)
        seconds += training_s(flops, device, devices, ASSUMED_MFU) if device else 0.0
    if written:
        flops += forward_flops(architecture, vocab, written.rows, written.tokens)
        added.append(together * written.tokens * cache_bytes(architecture, dtype))
        state_bytes = state_bytes or weight_bytes(architecture, vocab, dtype)
        if device:
            of = (architecture, vocab, dtype, written.rows, written.tokens)
            seconds += generation_s(*of, together, device, devices)
    return Bounds(
        train_tokens=trained.rows * trained.tokens if trained else None,
        written_tokens=written.rows * written.tokens if written else None,
        flops=flops,
        device_bytes=state_bytes + max(added),
        hours=seconds / 3600 if device else None,
        mfu=ASSUMED_MFU,
    )


def _at_once(rows: Sequences, hardware: HardwareConfig) -> int:
    """Rows of one forward pass of one device."""
    share = max(1, rows.rows_per_forward // hardware.world_size)
    return rows.sequences_per_row * min(share, hardware.micro_batch_size or share)


def _architecture(model: ModelConfig) -> dict[str, Any]:
    """As configured, or the config of a local checkpoint; with its vocabulary's size."""
    config = Path(model.path or "") / "config.json"
    architecture: dict[str, Any] = model.architecture
    if model.path is not None and config.is_file():
        architecture = json.loads(config.read_text(encoding="utf-8"))
    return {"vocab_size": model.vocab_size, **architecture}
