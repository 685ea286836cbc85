"""The subcommand `plan`: prints what recipes would run and what they would reuse."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from reasoning_lab.commands.arguments import to_sweep
from reasoning_lab.commands.plan import PlannedNode, planned
from reasoning_lab.commands.preflight import check_data
from reasoning_lab.commands.sweep import recipes
from reasoning_lab.graph.recipe import variant_label
from reasoning_lab.graph.store import Store
from reasoning_lab.models.footprint import Footprint

_NUMBERS = ("steps", "tokens", "GB each", "FLOPs", "time")
_FORMATS = ("format=json", "format=table")


def main(arguments: Sequence[str]) -> None:
    """Plan a recipe, or every combination of swept overrides; `format=json` for programs."""
    words = [word for word in arguments if word not in _FORMATS]
    swept = list(recipes(to_sweep(words)))
    unchecked = check_data(swept, local_only=True)
    nodes = planned(swept)
    if "format=json" in arguments:
        print(json.dumps({"nodes": [dataclasses.asdict(node) for node in nodes]}, indent=2))
        return
    stores = dict.fromkeys(Path(recipe.root.paths.runs) / "store" for recipe in swept)
    notices = [Store(root).older_layout_notice() for root in stores]
    lines = [f"{notice}." for notice in notices if notice] + memory_lines(nodes)
    # What the artifacts that are reused dropped much of.
    distinct = [node for node in nodes if not node.repeated]
    lines += [f"{node.stage}: {warning}." for node in distinct for warning in node.warnings]
    lines.append(summary(nodes))
    if unchecked:
        lines.append(f"Not on this machine, so not checked: the data of {', '.join(unchecked)}.")
    console = Console()
    console.print(plan_table(nodes))
    for line in lines:
        console.print(line, soft_wrap=True)


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
    stages_by_memory: dict[Footprint, dict[str, None]] = {}
    for node in nodes:
        if node.memory is not None and not node.repeated:
            stages_by_memory.setdefault(node.memory, {})[node.stage] = None
    return [
        f"{', '.join(stages)}: {memory.parameters / 1e6:,.1f}M parameters; on one device about "
        f"{_size(memory.weights + memory.gradients)} of weights and gradients, "
        f"{_size(memory.optimizer + memory.master)} of optimizer state, "
        f"{_size(1000 * memory.activations_per_token)} for every 1,000 tokens of a micro-batch, "
        f"{_logits_and_more(memory)}."
        for memory, stages in stages_by_memory.items()
    ]


def _logits_and_more(memory: Footprint) -> str:
    if memory.logits_tokens is None:
        logits = f"{_size(memory.loss(1000))} for the logits of every 1,000 of them"
    else:  # Of two full parts.
        logits = f"at most {_size(memory.loss(2 * memory.logits_tokens))} for logits"
    parts = {
        "of frozen copies": memory.copies,
        "gathered": memory.gathered,
        "in each node's memory": memory.host,
        "on each node's drives": memory.nvme,
    }
    return logits + "".join(f", {_size(size)} {what}" for what, size in parts.items() if size)


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
    if hours := [bound.hours for bound in bounds if bound.hours is not None]:
        line += (
            f"; about {sum(hours):,.0f} h if every text is as long as it may be, training at "
            f"{bounds[0].mfu:.0%} of the device's peak"
        )
    return line + "."


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


def _amounts(node: PlannedNode) -> list[str]:
    """Tokens, memory, arithmetic and time; what only the config bounds says so."""
    bounds = node.bounds
    tokens = memory = flops = time = ""
    most = "≤" if node.at_most else ""
    if bounds is not None:
        tokens = f"≤{_short((bounds.train_tokens or 0) + (bounds.written_tokens or 0))}"
        time = "" if bounds.hours is None else f"~{bounds.hours:,.1f} h"
        memory, flops = f"≤{bounds.device_bytes / 1e9:,.1f}", f"≤{bounds.flops:.1e}"
    if node.train_tokens is not None:
        tokens = most + _short(node.train_tokens)
    if node.wall_s is not None:
        time = f"{most}{node.wall_s:,.0f} s"
    return [tokens, memory, flops, time]


def _short(count: float) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= size:
            return f"{count / size:,.1f}{unit}"
    return f"{count:,.0f}"
