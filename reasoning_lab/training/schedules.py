"""The configured optimizer and the course of its learning rate."""

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
    return partial(factory(optimization.optimizer, key), lr=optimization.learning_rate)


def schedule_of(optimization: OptimizationConfig) -> Schedule:
    """The configured learning-rate schedule."""
    return partial(
        trapezoid,
        steps=optimization.steps,
        warmup_frac=optimization.warmup_frac,
        decay_frac=optimization.decay_frac,
    )


def trapezoid(step: int, steps: int, warmup_frac: float, decay_frac: float) -> float:
    """Factor of the learning rate before optimizer step `step`, 0-based: up, flat, down."""
    rise = (step + 1) / (warmup_frac * steps) if warmup_frac > 0 else 1.0
    fall = (steps - step) / (decay_frac * steps) if decay_frac > 0 else 1.0
    return max(0.0, min(1.0, rise, fall))
