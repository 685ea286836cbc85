"""The configured optimizer and the course of its learning rate.

A schedule gives the factor of the learning rate before an optimizer step, counted from 0. All of
them warm up alike: the first step already learns, the last step of the warm-up has the peak.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial

from torch import Tensor
from torch.optim import Optimizer

from reasoning_lab.config.optimization import OptimizationConfig
from reasoning_lab.config.targets import factory

OptimizerFactory = Callable[[Iterable[tuple[str, Tensor]]], Optimizer]
Schedule = Callable[[int], float]


def optimizer_of(optimization: OptimizationConfig, stage: str) -> OptimizerFactory:
    """The configured optimizer, waiting for its parameters."""
    key = f"stages.{stage}.optimization.optimizer"
    return partial(factory(optimization.optimizer.arguments(), key), lr=optimization.learning_rate)


def schedule_of(optimization: OptimizationConfig) -> Schedule:
    """The configured learning-rate schedule, waiting for the step."""
    schedule = factory(optimization.schedule.arguments(), "optimization.schedule")
    return partial(schedule, steps=optimization.steps)


def constant(step: int, steps: int, warmup_frac: float = 0.0) -> float:
    """Up, then flat."""
    return min(1.0, _warmup(step, steps, warmup_frac))


def linear(step: int, steps: int, warmup_frac: float = 0.0) -> float:
    """Up, then straight down to 0."""
    return trapezoid(step, steps, warmup_frac, 1.0 - warmup_frac)


def cosine(step: int, steps: int, warmup_frac: float = 0.0) -> float:
    """Up, then down to 0 along half a cosine (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    warmup_steps = warmup_frac * steps
    done_frac = (step - warmup_steps) / (steps - warmup_steps) if warmup_frac < 1 else 0.0
    fall = (1.0 + math.cos(math.pi * min(1.0, max(0.0, done_frac)))) / 2
    return min(_warmup(step, steps, warmup_frac), fall)


def trapezoid(step: int, steps: int, warmup_frac: float = 0.0, decay_frac: float = 0.0) -> float:
    """Up, flat, straight down to 0."""
    fall = (steps - step) / (decay_frac * steps) if decay_frac > 0 else 1.0
    return max(0.0, min(1.0, _warmup(step, steps, warmup_frac), fall))


def _warmup(step: int, steps: int, warmup_frac: float) -> float:
    return (step + 1) / (warmup_frac * steps) if warmup_frac > 0 else 1.0
