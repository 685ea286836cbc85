"""How long a step of RL takes by `staleness`, on a stand-in engine whose lengths are lognormal.

    python -m tests.benchmarks.staleness

The schedules are the stage's own, with its prompts, queue and rounds. The engine and the update
stand in, and their time is counted, so that a busy machine changes nothing. The unit is the time of
a token in all slots. The engine has 64 slots, and each takes the next rollout as soon as it is
free. A step has 256 rollouts, 8 a prompt. They have 120 tokens on average and 512 at most; the
standard deviation of the logarithm of their lengths is 0.8. An update takes a third of the mean
time in which a step's rollouts are drawn at once.

Tokens that were sampled under other weights are read again, 450 of them in the time of a token.
That is what arithmetic gives for 3.8B parameters on an H100. What the same weights have read is in
the cache.
"""

import heapq
import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from reasoning_lab.config.optimization import OptimizationConfig
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.stages.rl.metrics import age_metrics
from reasoning_lab.stages.rl.records import DropReason, StepRollouts
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.types import Completion, Problem, Prompt
from reasoning_lab.verify import Verifier
from tests.support.schedules import TellingEngine, Trainer, Weight

SLOTS, PROMPTS, GROUP_SIZE = 64, 32, 8
MEAN_TOKENS, SPREAD, MOST_TOKENS = 120, 0.8, 512
READ_TOKENS = 450
STEPS, WARM_UP_STEPS = 60, 20
SETTINGS = (
    (0, "finish"),
    (1, "finish"),
    (4, "finish"),
    (2, "continue"),
    (4, "continue"),
    (8, "continue"),
)


def lognormal(seed: int) -> tuple[int, str]:
    """Tokens of a rollout, and a text without an answer, for which the verifier needs no worker."""
    mean = random.Random(seed).normalvariate(0.0, SPREAD) - SPREAD**2 / 2
    return max(1, round(MEAN_TOKENS * math.exp(mean))), "so"


class SlottedEngine(TellingEngine):
    """Counts the time of its calls.

    Attributes:
        calls: Of each, the version of the weights, its time, and the time of its slots together.
    """

    def __init__(self, policy: Weight) -> None:
        super().__init__(policy, lognormal)
        self.calls: list[tuple[int, float, int]] = []

    def extend(
        self,
        prompts: Sequence[Prompt],
        started: Sequence[Completion],
        sampling: Sampling,
        seeds: Sequence[int],
        most_tokens: int,
    ) -> list[Completion]:
        completions = super().extend(prompts, started, sampling, seeds, most_tokens)
        free = [0] * min(SLOTS, len(prompts))
        new_tokens = 0
        for before, after in zip(started, completions, strict=True):
            new = len(after.token_ids) - len(before.token_ids)
            heapq.heappush(free, heapq.heappop(free) + new)
            new_tokens += new
        read = sum(
            len(before.token_ids)
            for before in started
            if before.token_ids and before.token_ids[-1] != self.version
        )
        self.calls.append((self.version, max(free) + read / READ_TOKENS, new_tokens))
        return completions


class Measured(NamedTuple):
    """Means over the steps after the first, in tokens of a slot.

    Attributes:
        step: Time of a step.
        draw: Time of the engine's work for a step.
        busy_frac: Of the slots' time, while all steps took place.
        age_mean, age_max: Of the tokens that a step trains on.
        interrupted_frac: Of the rollouts, those with tokens of several versions.
        stale: Groups that were too old.
    """

    step: float
    draw: float
    busy_frac: float
    age_mean: float
    age_max: float
    interrupted_frac: float
    stale: int


def measure(staleness: int, partial_rollouts: str, update: float, steps: int = STEPS) -> Measured:
    """One setting.

    Args:
        staleness, partial_rollouts: The stage's.
        update: Time of an update.
        steps: More than `WARM_UP_STEPS`.
    """
    config = RLStage(
        group_size=GROUP_SIZE,
        max_new_tokens=MOST_TOKENS,
        staleness=staleness,
        partial_rollouts=partial_rollouts,
        optimization=replace(
            OptimizationConfig(), batch_size=PROMPTS, length=f"{steps + staleness} steps"
        ),
    )
    pool = [Problem(f"p{number}", "1", "number", "f") for number in range(PROMPTS * 4)]
    with Verifier(workers=1, timeout_s=20, memory_mb=1024) as verifier:
        trainer = Trainer(config, pool, verifier, SlottedEngine)
        results = trainer.steps(0, steps)
        trainer.schedule.close()
    assert isinstance(trainer.engine, SlottedEngine)
    lag = 1 if partial_rollouts == "continue" else staleness
    return _measured(trainer.engine.calls, results, update, lag)


def _measured(
    calls: Sequence[tuple[int, float, int]],
    results: Sequence[StepRollouts],
    update: float,
    lag: int,
) -> Measured:
    """Put the engine's times in order: step t waits for what the weights before t - lag drew.

    The engine draws by these weights once they are there and its earlier work has ended.
    """
    drawing: dict[int, float] = defaultdict(float)
    tokens = Counter[int]()
    for version, time, new_tokens in calls:
        drawing[version] += time
        tokens[version] += new_tokens
    engine_free, drawn, ends = 0.0, [], [0.0]
    for step in range(len(results)):
        engine_free = max(engine_free, ends[-1]) + drawing[step]
        drawn.append(engine_free)
        ready = drawn[step - lag] if step >= lag else 0.0
        ends.append(max(ends[-1], ready) + update)
    steps = range(WARM_UP_STEPS, len(results))
    elapsed = (ends[-1] - ends[WARM_UP_STEPS]) / len(steps)
    rollouts = [[record.rollout for record in results[step].fresh_rollouts] for step in steps]
    ages = [age_metrics(of_step, step) for step, of_step in zip(steps, rollouts, strict=True)]
    drawn_tokens = sum(tokens[step] for step in steps) / len(steps)
    return Measured(
        step=elapsed,
        draw=sum(drawing[step] for step in steps) / len(steps),
        busy_frac=drawn_tokens / SLOTS / elapsed,
        age_mean=sum(age["age_mean"] for age in ages) / len(ages),
        age_max=max(age["age_max"] for age in ages),
        interrupted_frac=sum(age["interrupted_frac"] for age in ages) / len(ages),
        stale=sum(one.dropped_groups[DropReason.STALE] for one in results),
    )


def main() -> None:
    """Print the table."""
    draw = measure(0, "finish", 0.0).draw
    update = draw / 3
    columns = ("staleness", "partial rollouts", "step", "of staleness 0", "idle", "age mean")
    print(f"| {' | '.join(columns)} | age max | interrupted | too old |")
    print("| --: | :-- | --: | --: | --: | --: | --: | --: | --: |")
    first = draw + update
    for staleness, partial_rollouts in SETTINGS:
        of = measure(staleness, partial_rollouts, update)
        print(
            f"| {staleness} | {partial_rollouts} | {of.step:,.0f} | {of.step / first:.0%} "
            f"| {1 - of.busy_frac:.0%} | {of.age_mean:.2f} | {of.age_max:.0f} "
            f"| {of.interrupted_frac:.0%} | {of.stale} |"
        )


if __name__ == "__main__":
    main()
