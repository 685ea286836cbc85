"""From a stage's length and its rows to the rows that each optimizer step reads."""

import logging

import numpy as np
from jaxtyping import Int

from reasoning_lab.config.optimization import OptimizationConfig
from reasoning_lab.data.tokens.batches import step_batches

log = logging.getLogger(__name__)


def in_steps(
    optimization: OptimizationConfig,
    stage: str,
    rows: int,
    tokens_per_row: float,
    unit: str = "rows",
) -> OptimizationConfig:
    """`optimization` with its length in steps, which the log says where it was another.

    One epoch reads `rows`, of `tokens_per_row` on average; the log calls them `unit`.
    """
    steps = optimization.in_steps(rows, tokens_per_row)
    if optimization.planned_steps is None:
        log.info(
            "stages.%s: %s = %s %s of %s %s.",
            stage,
            optimization.length,
            f"{steps.steps:,}",
            "step" if steps.steps == 1 else "steps",
            f"{optimization.batch_size:,}",
            unit,
        )
    return steps


def step_plan(
    lengths: Int[np.ndarray, " D"], optimization: OptimizationConfig, seed: int
) -> Int[np.ndarray, "steps batch_size"]:
    """The rows of every step; see `step_batches`.

    With `overfit_batches` the steps take turns with the batches that there are. `lengths` are the
    tokens of each row, and the length of `optimization` is in steps.
    """
    steps = optimization.steps
    distinct = min(steps, optimization.overfit_batches or steps)
    batches = step_batches(lengths, optimization.batch_size, distinct, seed)
    return batches[np.arange(steps) % distinct] if distinct < steps else batches
