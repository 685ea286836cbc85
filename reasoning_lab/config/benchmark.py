"""Schema of `benchmark` and `protocol`: held-out problems, and how a policy answers them."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from reasoning_lab.config.components import SourceConfig
from reasoning_lab.config.fields import (
    ALL,
    AUTO,
    FREE_KEYS,
    MAX_SEED,
    at_least,
    choice,
    fraction,
    number,
)
from reasoning_lab.config.problems import known_count
from reasoning_lab.types import UserError

# Rollouts that a process samples and saves at a time, where a stage only samples.
SHARD_ROLLOUTS = 1024


@dataclass
class SamplingConfig:
    """How completions are drawn; see `reasoning_lab.sampling.engine.Sampling`.

    Attributes:
        temperature: Divides the logits; 0 = greedy.
        top_p: Nucleus sampling: the likeliest tokens with this probability in sum; 1.0 = all.
        max_new_tokens: Token limit at which a completion is truncated; `auto` = see
            `reasoning_lab.training.completion_limit`. A benchmark, which is the same for all
            policies, has a number.
    """

    temperature: float = number(MISSING, least=0.0)
    top_p: float = number(1.0, least=0.001, most=1.0)
    max_new_tokens: int | str = at_least(1, AUTO)

    @property
    def completion_tokens(self) -> int:
        """Most tokens of a completion, once `auto` is a number.

        Raises:
            ValueError: It is none yet.
        """
        if isinstance(self.max_new_tokens, str):
            raise ValueError(f"how many tokens are {self.max_new_tokens}? ask completion_limit")
        return self.max_new_tokens


@dataclass
class BenchmarkConfig:
    """A fixed set of held-out problems and the protocol by which a policy meets it.

    Attributes:
        data: A source of its own; null = the run's.
        instruction: Follows every problem on a line of its own; empty = none.
        split: test, or validation for tuning; no training problem is in either.
        levels: Difficulty levels of the problems; null = all.
        count: Number of problems, of which a source must have as many; or `all` of the split.
        seed: Draws the problems; independent of the run's seed, so all runs meet the same.
        samples: Completions a problem.
        sampling: How these are drawn.
        unreadable: drop = problems whose gold cannot be read are left out and counted; or refuse.
        max_unreadable_frac: Largest fraction of the problems that may be dropped.
        unseen: What of the problems no stage of a policy may have trained on: `prompts` = these and
            their twins; `levels` = no problem of their family and level either; `families` = none
            of their families.
        metrics: Further metrics by name, each `_target_` and options of a function that gives a
            completion a number; see `reasoning_lab.evaluate.completion_metrics`.
        token_budgets: Parts of `sampling.max_new_tokens`, from 0 to 1, at which pass@1 is measured
            as if they were the limit; see `reasoning_lab.evaluate.token_budgets`.
    """

    data: SourceConfig | None = None
    instruction: str = ""
    split: str = choice("test", "validation")
    levels: list[int] | None = MISSING
    # OmegaConf fails on a union at the top of a mapping's values; `check_values` checks it.
    count: Any = at_least(1, ALL)  # noqa: RUF009
    seed: int = number(0, least=0, most=MAX_SEED)
    samples: int = at_least(1)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    unreadable: str = choice("drop", "refuse")
    max_unreadable_frac: float = fraction(0.5)
    unseen: str = choice("prompts", "levels", "families")
    metrics: dict[str, Any] = field(default_factory=dict, metadata=FREE_KEYS)
    token_budgets: list[float] = field(default_factory=list, metadata={"when_set": True})

    def check(self, key: str) -> None:
        """Raise UserError for budgets that are none; `key` is where this stands in the config."""
        for budget in self.token_budgets:
            if not 0 < budget <= 1:
                raise UserError(
                    f"{key}.token_budgets: {budget:g} is no part of the token limit; give numbers "
                    "above 0, up to 1, like [0.25, 0.5]"
                )

    @property
    def known_count(self) -> int | None:
        """The number of problems; None = all, of data that is not on this machine."""
        return known_count(self.count)


@dataclass
class ProtocolConfig:
    """What takes the place of every benchmark's own protocol; null = the benchmark's.

    Attributes:
        count: Problems at most; a benchmark with fewer keeps all of them.
        samples: Completions a problem.
        temperature: Divides the logits; 0 = greedy.
        top_p: Nucleus sampling of the completions.
        max_new_tokens: Token limit at which a completion is truncated.
    """

    count: int | None = number(None, least=1)
    samples: int | None = number(None, least=1)
    temperature: float | None = number(None, least=0.0)
    top_p: float | None = number(None, least=0.001, most=1.0)
    max_new_tokens: int | None = number(None, least=1)

    def applied(self, benchmark: BenchmarkConfig) -> BenchmarkConfig:
        """`benchmark` under this protocol; a count of `all` stays until its number is known."""
        given = {key: value for key, value in vars(self).items() if value is not None}
        samples = given.pop("samples", benchmark.samples)
        count = benchmark.count
        if (most := given.pop("count", None)) is not None:
            count = count if isinstance(count, str) else min(most, count)
        sampling = dataclasses.replace(benchmark.sampling, **given)
        return dataclasses.replace(benchmark, count=count, samples=samples, sampling=sampling)
