"""How a training stage steps: its optimizer, its rate and its budget. No torch here."""

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from reasoning_lab.config.fields import at_least, fraction, number


@dataclass
class OptimizationConfig:
    """How a training stage steps.

    Attributes:
        optimizer: `_target_` and options of a torch optimizer.
        learning_rate: Its peak.
        warmup_frac: Fraction of the steps over which it rises linearly from 0.
        decay_frac: Fraction of the steps, at the end, over which it falls linearly to 0.
        clip_norm: Largest norm of the gradient.
        steps: Optimizer steps.
        batch_size: Global batch: rows an optimizer step.
        checkpoint_every_steps: How often the state is saved that a killed run resumes from.
        checkpoint_every_minutes: The same by the clock; whichever comes first. It is looked at
            between two steps.
        log_every_steps: How often metrics are sent to the tracker.
    """

    optimizer: dict[str, Any] = MISSING
    learning_rate: float = number(MISSING, least=0.0)
    warmup_frac: float = fraction(0.0)
    decay_frac: float = fraction(0.0)
    clip_norm: float = number(1.0, least=0.0)
    steps: int = at_least(1)
    batch_size: int = at_least(1)
    checkpoint_every_steps: int = number(200, least=1, placement=True)
    checkpoint_every_minutes: float = number(10.0, least=0.1, placement=True)
    log_every_steps: int = number(10, least=1, placement=True)
