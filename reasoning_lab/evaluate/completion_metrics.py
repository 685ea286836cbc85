"""Metrics that a config names: the mean of a function over a benchmark's completions.

Such a function is written like a reward (`reasoning_lab.rewards.weighted`): its parameters'
names say what it needs, such as `completion`, `gold` or `verdict`. It returns a number, or None
where it cannot judge. A problem is the unit of the interval, as everywhere in an evaluation.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from reasoning_lab.evaluate.statistics import mean_with_interval
from reasoning_lab.rewards.weighted import WeightedRewards
from reasoning_lab.types import RolloutGroup

PREFIX = "metric/"


def completion_metrics(
    options: Mapping[str, Any], max_new_tokens: int, key: str, thought_prefix: str = ""
) -> dict[str, WeightedRewards]:
    """The functions that a benchmark's `metrics` names, checked.

    Args:
        options: The `metrics`: by name, `_target_` and the function's options.
        max_new_tokens: Most tokens of a completion.
        key: The config key of `options`, for errors.
        thought_prefix: What the chat template writes of the thought before a completion.

    Raises:
        UserError: A function does not exist, or an option is impossible.
    """
    return {
        name: WeightedRewards({name: term}, max_new_tokens, key, thought_prefix)
        for name, term in options.items()
    }


def metric_means(
    metrics: Mapping[str, WeightedRewards], groups: Iterable[RolloutGroup]
) -> dict[str, list[float] | None]:
    """Mean and ends of the 95% interval of each metric, by `metric/NAME`.

    Args:
        groups: One a problem; read once. A completion that a metric cannot judge is left out of
            its mean, and so is a problem without any other; None = fewer than two problems are
            left.
    """
    of_problems: dict[str, list[float]] = {name: [] for name in metrics}
    for group in groups:
        for name, metric in metrics.items():
            terms = [metric.terms(rollout) for rollout in group.rollouts]
            if values := [sum(judged.values()) for judged in terms if judged]:
                of_problems[name].append(float(np.mean(values)))
    return {
        f"{PREFIX}{name}": mean_with_interval(means) if len(means) > 1 else None
        for name, means in of_problems.items()
    }
