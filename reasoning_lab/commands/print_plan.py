"""The subcommand `plan`: prints what recipes would run, and what that costs and needs."""

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
from reasoning_lab.commands.prices import architecture_of
from reasoning_lab.commands.sweep import recipes
from reasoning_lab.config.components import missing_packages_noted
from reasoning_lab.config.hardware import GPU_MODELS, HardwareConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.graph.recipe import variant_label
from reasoning_lab.graph.store import Store
from reasoning_lab.models.bounds import Bounds
from reasoning_lab.models.cost import ASSUMED_MFU, DEVICES, KERNEL_START_S, KERNELS_OF_LAYER
from reasoning_lab.models.footprint import Footprint, is_known, parameter_count

LEGEND = (
    "≤ and ≥ are bounds by the config, of texts as long as they may be; ~ is what runs of like "
    "size took; ? is bounded by nothing. A model's own memory and disk are exact. What a process "
    "takes besides was measured on a CPU; what CUDA adds is assumed. Not in it: documents that are "
    "left out as too long, a model that writes solutions, vLLM's servers, other programs."
)
_FORMATS = ("format=json", "format=table")
_FOLDED, _LEAST_FOLDED = ("variant", "stage"), 14
_TEXT = ("variant", "seed", "stage", "fingerprint", "state")
_NEEDS = ("device", "rank", "machine", "artifact", "work", "tables")
_COUNTS = (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3), ("", 1.0))
_BYTES = ((" TB", 1e12), (" GB", 1e9), (" MB", 1e6), (" kB", 1e3), (" B", 1.0))
_COLUMNS = 100
_PLAIN = (("", 1.0),)
_SECONDS = ((" h", 3600.0), (" min", 60.0), (" s", 1.0))


def main(arguments: Sequence[str]) -> None:
    """Plan a recipe, or every combination of swept overrides; `format=json` for programs."""
    words = [word for word in arguments if word not in _FORMATS]
    with missing_packages_noted() as missing:
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
    lines += [f"Not on this machine: {sentence}." for sentence in dict.fromkeys(missing)]
    models = [recipe.root.model for recipe in swept]
    hardware = swept[0].root.hardware
    lines += [*too_large(nodes, hardware), summary(nodes), time_source(nodes, hardware)]
    lines += [disk(nodes, models, unchecked), LEGEND]
    console = Console()
    if not console.is_terminal:  # A pipe or a file has no width that would matter.
        console.width = max(console.width, _COLUMNS)
    console.print(price_table(nodes), "")
    console.print(needs_table(nodes))
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)  # Extras stand in brackets.


def price_table(nodes: Sequence[PlannedNode]) -> Table:
    """Tokens, arithmetic, time and money; a node that an earlier recipe makes says so."""
    rows: list[dict[str, str]] = []
    above = ""
    for node in nodes:
        price = node.price
        # The name of a variant may be long, so only its first node bears it.
        variant = "" if node.variant == above else variant_label(node.variant)
        above = node.variant
        tokens = price.train_tokens + price.written_tokens
        most = "≤" if node.at_most else ""
        rows.append(
            {
                "variant": variant,
                "seed": str(node.seed),
                "stage": node.stage,
                "fingerprint": node.fingerprint[:8],
                "state": "shared" if node.repeated and node.state == "run" else node.state,
                "steps": "" if node.steps is None else f"{most}{node.steps:,}",
                "tokens": between(tokens, _COUNTS),
                "FLOPs": between(price.flops, ()),
                "time": between(price.wall_s, _SECONDS),
                "device time": between(price.device_s, _SECONDS),
                "money": between(price.money, _PLAIN),
            }
        )
    hidden = {name for name in ("variant", "seed") if len({row[name] for row in rows} - {""}) <= 1}
    # Where time is known, arithmetic is of less use.
    if any(node.price.wall_s.most is not None for node in nodes):
        hidden.add("FLOPs")
    return _table([{k: v for k, v in row.items() if k not in hidden} for row in rows])


def needs_table(nodes: Sequence[PlannedNode]) -> Table:
    """Memory at the peak and disk; nodes that are to be made and need the same share a row."""
    stages: dict[tuple[str, ...], dict[str, None]] = {}
    for node in nodes:
        if node.state == "run" and not node.repeated:
            cells = tuple(between(getattr(node.needs, name), _BYTES) for name in _NEEDS)
            stages.setdefault(cells, {})[node.stage] = None
    rows = []
    for cells, names in stages.items():
        first, *others = names
        like = f" and {len(others)} alike" if others else ""
        rows.append({"stage": first + like, **dict(zip(_NEEDS, cells, strict=True))})
    return _table(rows)


def _table(rows: Sequence[dict[str, str]]) -> Table:
    """The columns that say something of any row."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    names = [
        name
        for name in (rows[0] if rows else {})
        if any(row[name] not in ("", "?") for row in rows)
    ]
    for name in names:
        table.add_column(
            name,
            justify="left" if name in _TEXT else "right",
            overflow="fold",
            no_wrap=name not in _FOLDED,
            min_width=_LEAST_FOLDED if name in _FOLDED else None,
        )
    for row in rows:
        table.add_row(*(row[name] for name in names))
    return table


def between(bounds: Bounds | None, units: Sequence[tuple[str, float]]) -> str:
    """`3–4 GB`, `≤4 GB`, `≥3 GB`, or one number for two that read alike.

    Extrapolated bounds have a `~` in front. Unknown ones are `?`, and what is not there is empty.

    Args:
        bounds: Of one figure; None = it has none.
        units: Names with their sizes, the largest first; none = powers of ten.
    """
    if bounds is None or bounds.most == 0:
        return ""
    least, most = bounds.least or None, bounds.most
    about = "~" if bounds.extrapolated else ""
    if most is None:
        return "?" if least is None else f"{about}≥{_written(least, least, units)}"
    high = _written(most, most, units)
    if least is None:
        return f"{about}≤{high}"
    low = _written(least, most, units)
    if low == high:
        return about + high
    name = high.lstrip("0123456789.,")
    return f"{about}{low.removesuffix(name) if name and low.endswith(name) else low}–{high}"


def _written(count: float, beside: float, units: Sequence[tuple[str, float]]) -> str:
    """`count` in the unit of `beside`, unless it is too small for it."""
    if not units:
        return f"{count:.1e}"
    name, size = next((unit for unit in units if beside >= unit[1]), units[-1])
    if count < size / 20 and count < beside:
        return _written(count, count, units)
    return f"{count / size:,.{1 if count < 100 * size else 0}f}{name}"


def memory_lines(nodes: Sequence[PlannedNode]) -> list[str]:
    """What training takes of a device, a line for each distinct size."""
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


def too_large(nodes: Sequence[PlannedNode], hardware: HardwareConfig) -> list[str]:
    """A line on stages that a known GPU may be too small for."""
    device = DEVICES.get(hardware.gpu_model or "")
    names = {
        node.stage: None
        for node in nodes
        if device is not None
        and node.state == "run"
        and node.needs.device is not None
        and (node.needs.device.most or node.needs.device.least or 0) > device.memory_bytes
    }
    if device is None or not names:
        return []
    return [
        f"May not fit the {_size(device.memory_bytes)} of one {hardware.gpu_model}: "
        f"{', '.join(names)}; a smaller hardware.generation_batch_size or micro_batch_size takes "
        "less."
    ]


def _size(count: float) -> str:
    return between(Bounds.exactly(count), _BYTES) or "0 B"


def summary(nodes: Sequence[PlannedNode]) -> str:
    """How many distinct artifacts would be made and reused, and what that costs."""
    distinct = [node for node in nodes if not node.repeated]
    to_run = [node for node in distinct if node.state == "run"]
    line = f"{len(to_run)} to make, {len(distinct) - len(to_run)} to reuse"
    if len(nodes) > len(distinct):
        line += f", {len(nodes) - len(distinct)} shared between runs"
    timed = [node for node in to_run if node.price.wall_s.most is not None]
    if timed:
        time = between(_total([node.price.wall_s for node in timed]), _SECONDS)
        device_time = between(_total([node.price.device_s for node in timed]), _SECONDS)
        line += f"; {time}, {device_time} of a device"
        if prices := [node.price.money for node in timed if node.price.money]:
            line += f" for {between(_total(prices), _PLAIN)}"
    if unknown := len(to_run) - len(timed):
        line += f"{' and' if timed else ';'} {unknown} of unknown time"
    return line + "."


def _total(parts: Sequence[Bounds]) -> Bounds:
    """Of the upper bounds, and of the lower ones where there are all."""
    return sum(parts, Bounds.exactly(0))


def time_source(nodes: Sequence[PlannedNode], hardware: HardwareConfig) -> str:
    """What the times come from, and what would give more of them."""
    to_run = [node for node in nodes if node.state == "run" and not node.repeated]
    alike = sum(node.price.measured for node in to_run)
    line = (
        f"Time: {alike or 'none'} of {len(to_run)} by runs of like size in the store: the same "
        "settings, a tenth to ten times the rows, the same kind of devices"
    )
    if alike == len(to_run):
        return line + "."
    if hardware.gpu_model is not None:
        line += (
            f"; the others by the data sheet of {hardware.gpu_model}. Assumed: training at "
            f"{ASSUMED_MFU:.0%} of its peak; decoding that reads weights and cache once a token, "
            f"and, but for vLLM, starts {KERNELS_OF_LAYER} kernels a layer in "
            f"{1e6 * KERNEL_START_S:.0f} µs each"
        )
    elif hardware.accelerator == "cpu":
        line += "; on a CPU nothing else tells it"
    else:
        line += f"; hardware.gpu_model gives the others: {', '.join(GPU_MODELS)}"
    return line + "."


def disk(
    nodes: Sequence[PlannedNode], models: Sequence[ModelConfig], unchecked: Sequence[str]
) -> str:
    """What output and the Hugging Face cache take, as far as it is known.

    Args:
        nodes: The plan's.
        models: Of the recipes.
        unchecked: Keys of data that is not on this machine.
    """
    needs = [node.needs for node in nodes if node.state == "run" and not node.repeated]
    lasting = [each.artifact + each.tables for each in needs]
    known = [bounds for bounds in lasting if bounds.most is not None]
    most_work = max((each.work.most or 0 for each in needs), default=0)
    line = f"Disk: {between(_total(known), _BYTES) or 'nothing'} that stays"
    if unknown := len(lasting) - len(known):
        line += f", without {unknown} whose texts nothing bounds"
    line += f"; {between(Bounds(None, most_work), _BYTES) or 'nothing'} more while a stage runs"
    for model in {model.path: model for model in models}.values():
        if model.path is not None and not Path(model.path).is_dir():
            line += f". Hugging Face cache: {model.path}, {_cache_size(model)}"
    if unchecked:
        line += f". Not on this machine, so neither checked nor sized: {', '.join(unchecked)}"
    return line + "."


def _cache_size(model: ModelConfig) -> str:
    """Of a checkpoint with two or four bytes a parameter."""
    architecture = architecture_of(model)
    if not is_known(architecture):
        return "of unknown size"
    parameters = parameter_count(architecture, model.vocab_size)
    return between(Bounds(2 * parameters, 4 * parameters), _BYTES)
