"""What a run, or a sweep of runs, would make and what it would reuse; makes nothing.

Time and tokens come from artifacts of the store that differ from the node in their budget alone:
what they took a row, times the rows that the node plans, if these are at most ten times as many.
Where there is none, what the configs bound is told instead: tokens, memory and arithmetic at most,
and about how many hours that arithmetic takes on a known device.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from reasoning_lab.commands.compose import Recipe
from reasoning_lab.commands.root_config import RootConfig
from reasoning_lab.config.hardware import SHARDED, HardwareConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.plan import NodeState, plan
from reasoning_lab.graph.recipe import Node, variant_label
from reasoning_lab.graph.record import Record, fingerprint
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
    Sharding,
    cache_bytes,
    footprint,
    is_known,
    weight_bytes,
)
from reasoning_lab.training.stage import TrainingStage
from reasoning_lab.types import Sequences

# What a budget is: it says how many rows there are, and not what one of them costs.
_BUDGET_KEYS = frozenset(
    ("length", "batch_size", "count", "validation", "learning_rate", "schedule")
)
_MOST_TIMES_ROWS = 10
_Costs = Mapping[tuple[str, str], Record]
_NUMBERS = ("steps", "tokens", "GB each", "FLOPs", "time")


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
    stored: dict[str, _Costs] = {}
    for recipe in recipes:
        runs = recipe.root.paths.runs
        store = Store(Path(runs) / "store")
        if runs not in stored:
            stored[runs] = _costs(store.artifacts())
        nodes += [
            _priced(state, recipe, stored[runs]) for state in plan(recipe.nodes, store, records)
        ]
    return nodes


def _priced(state: NodeState, recipe: Recipe, costs: _Costs) -> PlannedNode:
    node = state.node
    stage = _at_most(node)
    workload = stage.workload()
    rows = workload.rows
    like = _like(node, costs)
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
        train_tokens=_scaled(like, "train_tokens", rows),
        wall_s=_scaled(like, "wall_s", rows),
        memory=memory,
        bounds=_bounds(recipe.root, workload, memory),
        warnings=[] if state.record is None else Ledger.of(state.record.ledger).warnings(),
    )


def _at_most(node: Node) -> Stage:
    """The stage with its length in steps, as far as the configs before it bound these."""
    if not isinstance(node.stage, TrainingStage):
        return node.stage
    return node.stage.at_most({kind: _made_rows(maker) for kind, maker in node.inputs.items()})


def _made_rows(node: Node) -> int | None:
    """Rows of the node's artifact at most; None = unknown."""
    return node.stage.made_rows({kind: _made_rows(maker) for kind, maker in node.inputs.items()})


def _steps(stage: Stage) -> int | None:
    return stage.optimization.planned_steps if isinstance(stage, TrainingStage) else None


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
            no_wrap=name not in ("variant", "stage"),
        )
    above = ""
    for node in nodes:
        cells = [node.stage, node.fingerprint[:8]]
        cells.append("shared" if node.repeated and node.state == "run" else node.state)
        most = "≤" if node.at_most else ""
        cells += ["" if node.steps is None else f"{most}{node.steps:,}", *_amounts(node)]
        cells = [str(node.seed), *cells] if several else cells
        # The name of a variant may be long, so only its first node bears it.
        variant = "" if node.variant == above else variant_label(node.variant)
        above = node.variant
        table.add_row(*([variant, *cells] if varied else cells))
    return table


def memory_lines(nodes: Sequence[PlannedNode]) -> list[str]:
    """What training takes in memory, a line for each distinct size."""
    found: dict[Footprint, dict[str, None]] = {}
    for node in nodes:
        if node.memory is not None and not node.repeated:
            found.setdefault(node.memory, {})[node.stage] = None
    return [
        f"{', '.join(stages)}: {memory.parameters / 1e6:,.1f}M parameters; on one device about "
        f"{_size(memory.weights + memory.gradients)} of weights and gradients, "
        f"{_size(memory.optimizer + memory.master)} of optimizer state, "
        f"{_size(1000 * memory.activations_per_token)} for every 1,000 tokens of a micro-batch, "
        f"{_logits(memory)}{_besides(memory)}."
        for memory, stages in found.items()
    ]


def warning_lines(nodes: Sequence[PlannedNode]) -> list[str]:
    """What the artifacts that are reused dropped much of."""
    return [
        f"{node.stage}: {warning}."
        for node in nodes
        if not node.repeated
        for warning in node.warnings
    ]


def _logits(memory: Footprint) -> str:
    if memory.logits_tokens is None:
        return f"{_size(memory.loss(1000))} for the logits of every 1,000 of them"
    # Of two full parts.
    return f"at most {_size(memory.loss(2 * memory.logits_tokens))} for logits"


def _besides(memory: Footprint) -> str:
    parts = {
        "of frozen copies": memory.copies,
        "gathered": memory.gathered,
        "in each node's memory": memory.host,
        "on each node's drives": memory.nvme,
    }
    return "".join(f", {_size(size)} {what}" for what, size in parts.items() if size)


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
    bounds = [node.bounds for node in to_run if node.bounds is not None]
    if hours := [each.hours for each in bounds if each.hours is not None]:
        line += (
            f"; about {sum(hours):,.0f} h if every text is as long as it may be, training at "
            f"{bounds[0].mfu:.0%} of the device's peak"
        )
    return line + "."


def sharding_of(hardware: HardwareConfig) -> Sharding:
    """How `hardware` spreads a training stage."""
    return Sharding(
        hardware.strategy,
        devices=hardware.devices,
        nodes=hardware.nodes,
        offload_optimizer=hardware.offload,
        activation_checkpointing=hardware.activation_checkpointing,
    )


def _memory(root: RootConfig, stage: Stage, work: Workload) -> Footprint | None:
    if not isinstance(stage, TrainingStage):
        return None
    architecture = _architecture(root.model)
    vocab = architecture["vocab_size"]
    found = footprint(
        architecture,
        vocab,
        root.model.dtype,
        stage.optimization.optimizer.target,
        sharding_of(root.hardware),
        stage.frozen_copies(),
        lora_rank=root.model.adapter.rank if root.model.adapter else None,
        packed=work.trained is not None and work.trained.packed,
        on_cpu=root.hardware.accelerator == "cpu",
    )
    if found is not None and root.hardware.kernels == "reference":
        found = replace(found, logits_tokens=None)
    sampled = root.hardware.strategy in SHARDED or root.model.dtype == "mixed"
    if found is None or not sampled or not work.written:
        return found
    # What samples is whole on every device.
    whole = weight_bytes(architecture, vocab, root.model.sampling_dtype)
    return replace(found, copies=found.copies + whole)


def _bounds(root: RootConfig, work: Workload, memory: Footprint | None) -> Bounds | None:
    device = DEVICES.get(root.hardware.gpu_model or "")
    architecture = _architecture(root.model)
    vocab = architecture["vocab_size"]
    dtype = root.model.sampling_dtype
    trained, written = work.trained, work.written
    if not is_known(architecture) or not (trained or written):
        return None
    devices = sharding_of(root.hardware).world_size
    together = root.hardware.generation_batch_size
    flops, seconds, kept, added = 0.0, 0.0, memory.states if memory else 0, [0]
    if trained and memory:
        flops = training_flops(architecture, vocab, trained.rows, trained.tokens)
        added.append(memory.peak(_at_once(trained, root.hardware) * trained.tokens) - kept)
        seconds += training_s(flops, device, devices, ASSUMED_MFU) if device else 0.0
    if written:
        flops += forward_flops(architecture, vocab, written.rows, written.tokens)
        added.append(together * written.tokens * cache_bytes(architecture, dtype))
        kept = kept or weight_bytes(architecture, vocab, dtype)
        if device:
            of = (architecture, vocab, dtype, written.rows, written.tokens)
            seconds += generation_s(*of, together, device, devices)
    return Bounds(
        train_tokens=trained.rows * trained.tokens if trained else None,
        written_tokens=written.rows * written.tokens if written else None,
        flops=flops,
        device_bytes=kept + max(added),
        hours=seconds / 3600 if device else None,
        mfu=ASSUMED_MFU,
    )


def _at_once(rows: Sequences, hardware: HardwareConfig) -> int:
    """Rows of one forward pass of one device."""
    share = max(1, rows.rows_per_forward // sharding_of(hardware).world_size)
    return rows.sequences_per_row * min(share, hardware.micro_batch_size or share)


def _architecture(model: ModelConfig) -> dict[str, Any]:
    """As configured, or the config of a local checkpoint; with its vocabulary's size."""
    config = Path(model.path or "") / "config.json"
    found: dict[str, Any] = model.architecture
    if model.path is not None and config.is_file():
        found = json.loads(config.read_text(encoding="utf-8"))
    return {"vocab_size": model.vocab_size, **found}


def _costs(artifacts: Iterable[Record]) -> _Costs:
    """Those whose cost is known, by stage and fingerprint, and one by stage and work a row."""
    found: dict[tuple[str, str], Record] = {}
    for artifact in artifacts:
        rows = artifact.metrics.get("planned_rows")
        if not rows:
            continue
        found[artifact.stage, artifact.fingerprint] = artifact
        alike = (artifact.stage, _work_of_a_row(artifact.identity))
        # Of several, the one with the most work: start-up counts least in it.
        if alike not in found or rows > found[alike].metrics["planned_rows"]:
            found[alike] = artifact
    return found


def _like(node: Node, costs: _Costs) -> Record | None:
    """An artifact whose cost says what the node's will be: its own, or a similar one."""
    own = costs.get((node.stage.name, node.fingerprint))
    return own or costs.get((node.stage.name, _work_of_a_row(node.identity)))


def _work_of_a_row(identity: Mapping[str, Any]) -> str:
    """A name of all that decides what a row takes: the identity without its budget."""
    work = {key: identity[key] for key in ("config", "groups")}
    return fingerprint({"work": _without_budget(work)})


def _without_budget(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_budget(v) for k, v in value.items() if k not in _BUDGET_KEYS}
    return value


def _scaled(like: Record | None, metric: str, rows: int | None) -> int | None:
    """What the node's rows take; None = unknown, or too far from what was measured."""
    if like is None or rows is None or not like.metrics.get(metric):
        return None
    measured_rows = int(like.metrics["planned_rows"])
    if rows > _MOST_TIMES_ROWS * measured_rows:
        return None
    return round(float(like.metrics[metric]) * rows / measured_rows)


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


def _amounts(node: PlannedNode) -> list[str]:
    """Tokens, memory, arithmetic and time; what only the config bounds says so."""
    bounds = node.bounds
    tokens = time = ""
    most = "≤" if node.at_most else ""
    if bounds is not None:
        tokens = f"≤{_short((bounds.train_tokens or 0) + (bounds.written_tokens or 0))}"
        time = "" if bounds.hours is None else f"~{bounds.hours:,.1f} h"
    if node.train_tokens is not None:
        tokens = most + _short(node.train_tokens)
    if node.wall_s is not None:
        time = f"{most}{node.wall_s:,.0f} s"
    if bounds is None:
        return [tokens, "", "", time]
    return [tokens, f"≤{bounds.device_bytes / 1e9:,.1f}", f"≤{bounds.flops:.1e}", time]


def _short(count: float) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= size:
            return f"{count / size:,.1f}{unit}"
    return f"{count:,.0f}"
