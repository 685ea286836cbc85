"""The subcommand `plan`: prints what recipes would run and what they would reuse."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from reasoning_lab.commands.arguments import to_sweep
from reasoning_lab.commands.compose import Recipe
from reasoning_lab.commands.plan import (
    memory_lines,
    plan_table,
    planned,
    summary,
    warning_lines,
)
from reasoning_lab.commands.preflight import check_data
from reasoning_lab.commands.sweep import recipes
from reasoning_lab.graph.store import Store

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
    console = Console()
    console.print(plan_table(nodes))
    for line in [
        *_store_notices(swept),
        *memory_lines(nodes),
        *warning_lines(nodes),
        summary(nodes),
    ]:
        console.print(line, soft_wrap=True)
    if unchecked:
        console.print(
            f"Not on this machine, so not checked: the data of {', '.join(unchecked)}.",
            soft_wrap=True,
        )


def _store_notices(recipes: Sequence[Recipe]) -> list[str]:
    """One sentence for each store that holds artifacts of an earlier version."""
    stores = dict.fromkeys(Path(recipe.root.paths.runs) / "store" for recipe in recipes)
    lines = (Store(root).older_layout_notice() for root in stores)
    return [f"{line}." for line in lines if line]
