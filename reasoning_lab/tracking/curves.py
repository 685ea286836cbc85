"""A training's metrics by step, as its history keeps them; read without torch."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow.parquet as pq

HISTORY = "history.parquet"
_MAX_POINTS = 400
_FIRST = ("rollout/reward_mean", "train/loss", "val/loss")

Curves = dict[str, dict[int, float]]


def read_history(folder: Path) -> Curves:
    """Each metric's values by step, for the policy in `folder`; empty without a history file."""
    if not (folder / HISTORY).exists():
        return {}
    curves: Curves = {}
    for row in pq.read_table(folder / HISTORY).to_pylist():
        curves.setdefault(row["metric"], {})[row["step"]] = row["value"]
    return curves


def points_of(values: Mapping[int, float]) -> list[list[float]]:
    """A curve as pairs of step and value, thinned to some 400, with the last; NaN is left out."""
    points = [[step, value] for step, value in values.items() if value == value]
    thinned = points[:: -(-len(points) // _MAX_POINTS) or 1]
    return thinned if not points or thinned[-1] is points[-1] else [*thinned, points[-1]]


def in_order(metrics: Iterable[str]) -> list[str]:
    """Names of metrics as a reader chooses among them: what a stage is about, then the others."""
    names = set(metrics)
    first = [name for name in _FIRST if name in names]
    return [*first, *sorted(names - set(first))]
