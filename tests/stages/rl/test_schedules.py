"""Which weights sample which rollouts, ahead and in parts, by tokens that tell their weights."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.config.validation import ValidationConfig
from reasoning_lab.stages.rl.options import CurriculumConfig, DomainConfig
from reasoning_lab.stages.rl.records import StepRollouts
from reasoning_lab.stages.rl.rollout_queue import RolloutQueue
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.types import Problem, Rollout, UserError
from reasoning_lab.verify import Verifier
from tests.support.schedules import TellingEngine, Trainer
from tests.support.stages import optimization

BATCH, GROUP, STEPS, MOST = 3, 2, 9, 16
POOL = [Problem(f"p{number}", "1", "number", "f") for number in range(7)]


def varied(seed: int) -> tuple[int, str]:
    """Lengths of which some are cut off, and texts of which half are right."""
    rng = random.Random(seed)
    return rng.choice((1, 2, 3, 5, 8, 13, 21)), f"\\boxed{{{rng.choice((1, 2))}}}"


def trainer_of(options: RLStage, verifier: Verifier) -> Trainer:
    validation = POOL[:2] if options.validation.count else []
    engine = partial(TellingEngine, lengths=varied)
    return Trainer(options, POOL, verifier, engine, validation)


def config(**changes: Any) -> RLStage:
    base = RLStage(
        group_size=GROUP,
        max_new_tokens=MOST,
        optimization=optimization(batch_size=BATCH, length=f"{STEPS} steps"),
    )
    return replace(base, **changes)


PARTIAL: dict[str, Any] = {"staleness": 4, "partial_rollouts": "continue"}
# Most groups of two rollouts are of one verdict or the other, and send their prompts to rest.
RESTING = CurriculumConfig("learnability", half_life_steps=3.0, rest_steps=2, rest_rollouts=2)


def rollouts_of(steps: Sequence[StepRollouts]) -> list[list[Rollout]]:
    return [[record.rollout for record in step.rollouts] for step in steps]


def tokens(steps: Sequence[StepRollouts]) -> Any:
    """All that a step sampled, as plain values."""
    return [
        (
            [
                (one.problem, list(one.completion.token_ids), list(one.token_versions), one.verdict)
                for one in rollouts
            ],
            [list(one.completion.token_ids) for group in step.validation for one in group.rollouts],
        )
        for step, rollouts in zip(steps, rollouts_of(steps), strict=True)
    ]


@pytest.mark.parametrize("staleness", [0, 1, 2, 4, 20])
def test_a_whole_step_is_sampled_by_the_weights_so_many_steps_earlier(
    staleness: int, verifier: Verifier
) -> None:
    trainer = trainer_of(config(staleness=staleness), verifier)
    for step, rollouts in enumerate(rollouts_of(trainer.steps(0, STEPS))):
        version = max(0, step - staleness)
        assert len(rollouts) == BATCH * GROUP
        assert {one.policy_version for one in rollouts} == {version}
        assert {token for one in rollouts for token in one.completion.token_ids} == {version}
        assert {tuple(one.token_versions) for one in rollouts} == {()}
    trainer.schedule.close()


def test_whatever_the_staleness_a_step_has_the_same_prompts_and_seeds(verifier: Verifier) -> None:
    """Only the weights differ, and with them the tokens."""

    def lengths(**changes: Any) -> list[list[tuple[str, int]]]:
        trainer = trainer_of(config(**changes), verifier)
        steps = rollouts_of(trainer.steps(0, STEPS))
        trainer.schedule.close()
        return [[(one.problem.prompt, len(one.completion.token_ids)) for one in s] for s in steps]

    expected = lengths(staleness=0)
    assert lengths(staleness=1) == lengths(staleness=5) == expected
    # In parts, groups come as they end, and in all they are the same.
    in_parts = lengths(**PARTIAL)
    assert in_parts != expected
    assert sorted(chain(*in_parts)) == sorted(chain(*expected))


@pytest.mark.parametrize("staleness", [2, 4])
def test_each_token_of_a_partial_rollout_has_the_version_that_sampled_it(
    staleness: int, verifier: Verifier
) -> None:
    trainer = trainer_of(config(staleness=staleness, partial_rollouts="continue"), verifier)
    steps = trainer.steps(0, STEPS)
    trainer.schedule.close()
    interrupted = 0
    for step, rollouts in enumerate(rollouts_of(steps)):
        assert len(rollouts) == BATCH * GROUP
        for one in rollouts:
            assert list(one.token_versions) == list(one.completion.token_ids)
            assert list(one.token_versions) == sorted(one.token_versions)
            assert one.policy_version == one.token_versions[0]
            assert one.last_policy_version == one.token_versions[-1]
            assert step - staleness <= one.policy_version <= one.last_policy_version <= step
            interrupted += one.policy_version < one.last_policy_version
    assert interrupted > 5
    # All that was sampled was trained on: nothing is begun that no step needs.
    trained = sum(len(one.completion.token_ids) for part in rollouts_of(steps) for one in part)
    assert trained == trainer.engine.tokens


@pytest.mark.parametrize("changes", [{}, {"staleness": 2}, PARTIAL], ids=["0", "2", "partial"])
def test_a_domain_has_its_group_size_however_rollouts_are_scheduled(
    changes: dict[str, Any], verifier: Verifier, tmp_path: Path
) -> None:
    options = config(domains={"logic": DomainConfig(group_size=3)}, **changes)
    pool = [replace(one, domain="logic") if one.prompt > "p3" else one for one in POOL]

    def trainer() -> Trainer:
        return Trainer(options, pool, verifier, partial(TellingEngine, lengths=varied))

    whole = trainer()
    expected = whole.steps(0, STEPS)
    whole.schedule.close()
    sizes = Counter(
        (group.problem.domain, len(group.rollouts)) for step in expected for group in step.groups
    )
    assert sizes.keys() == {("logic", 3), ("mathematics", GROUP)}
    first, second = trainer(), trainer()
    before = first.steps(0, 4)
    torch.save(first.state_dict(), tmp_path / "state")
    first.schedule.close()
    second.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert tokens([*before, *second.steps(4, STEPS)]) == tokens(expected)
    second.schedule.close()


def test_long_rollouts_hold_no_step_up(verifier: Verifier) -> None:
    """Of a step's tokens some wait for the next: fewer are sampled before the first update."""
    whole = trainer_of(config(staleness=4), verifier)
    first = rollouts_of(whole.steps(0, 1))[0]
    whole.schedule.close()
    longest = max(len(one.completion.token_ids) for one in first)
    in_parts = trainer_of(config(**PARTIAL), verifier)
    (taken,) = rollouts_of(in_parts.steps(0, 1))
    in_parts.schedule.close()
    assert longest == MOST > max(len(one.completion.token_ids) for one in taken)


@pytest.mark.parametrize(
    "changes",
    [
        {"staleness": 1},
        {"staleness": 4, "dynamic_sampling_rounds": 2},
        PARTIAL,
        {**PARTIAL, "staleness": 2},
        {"curriculum": RESTING},
        {"curriculum": RESTING, "staleness": 3, "dynamic_sampling_rounds": 2},
        {"curriculum": RESTING, **PARTIAL},
    ],
    ids=["1", "4", "partial", "partial, 2", "drawn", "drawn, 3", "drawn, partial"],
)
def test_a_state_at_any_step_goes_on_to_the_same_rollouts(
    changes: dict[str, Any], verifier: Verifier, tmp_path: Path
) -> None:
    validation = ValidationConfig(count=2, every_steps=2, max_new_tokens=MOST)
    options = config(**changes, validation=validation)
    trainer = trainer_of(options, verifier)
    expected = tokens(trainer.steps(0, STEPS))
    trainer.schedule.close()
    assert any(validated for _, validated in expected)
    for stop in range(1, STEPS):
        first = trainer_of(options, verifier)
        before = tokens(first.steps(0, stop))
        torch.save(first.state_dict(), tmp_path / "state")
        first.schedule.close()
        second = trainer_of(options, verifier)
        state = torch.load(tmp_path / "state", weights_only=True)
        second.load_state_dict(state)
        after = tokens(second.steps(stop, STEPS))
        second.schedule.close()
        assert [*before, *after] == expected


@pytest.mark.parametrize("options", [{"staleness": 1}, PARTIAL], ids=["ahead", "in parts"])
def test_a_state_of_an_earlier_version_is_refused(
    options: dict[str, Any], verifier: Verifier
) -> None:
    """Such a state had one rank's rollouts for all of them."""
    schedule = trainer_of(config(**options), verifier).schedule
    with pytest.raises(UserError, match=r"a training state of an earlier version"):
        schedule.load_state_dict({"steps": {}})


@pytest.mark.parametrize("changes", [{}, {"staleness": 2}, PARTIAL], ids=["0", "2", "partial"])
def test_a_curriculum_draws_by_what_was_known_when_rollouts_began(
    changes: dict[str, Any], verifier: Verifier
) -> None:
    """All are solved and then rest, so none is drawn once a step has trained on it."""

    def solved(seed: int) -> tuple[int, str]:
        return varied(seed)[0], "\\boxed{1}"

    rest = CurriculumConfig("uniform", rest_steps=99, rest_rollouts=GROUP)
    pool = [Problem(f"p{number}", "1", "number", "f") for number in range(40)]
    engine = partial(TellingEngine, lengths=solved)
    trainer = Trainer(config(curriculum=rest, **changes), pool, verifier, engine)
    steps = rollouts_of(trainer.steps(0, STEPS))
    trainer.schedule.close()
    first_trained: dict[str, int] = {}
    for step, rollouts in reversed(list(enumerate(steps))):
        first_trained |= dict.fromkeys((one.problem.prompt for one in rollouts), step)
    # By the weights before step v began what was drawn before that step had trained.
    for rollouts in steps:
        assert all(one.policy_version <= first_trained[one.problem.prompt] for one in rollouts)


def test_a_plan_counts_copies_of_the_weights_and_rollouts_in_memory() -> None:
    """What samples, and weights that are still to sample whole steps."""

    def counted(**changes: Any) -> tuple[int, int | None]:
        options = config(problems=ProblemsConfig([1], 9), **changes)
        written = options.workload().written
        assert written is not None
        return options.sampling_copies(), written.rows_in_memory

    of_step = BATCH * GROUP
    assert counted() == (0, of_step)
    assert counted(staleness=1) == (1, 2 * of_step)
    assert counted(rollout_noise=0.01) == (1, of_step)
    assert counted(staleness=4) == (5, 5 * of_step)
    # The step that trains, and 4 // 2 + 1 batches in the queue.
    assert counted(**PARTIAL) == (1, 4 * of_step)
    queue = RolloutQueue(BATCH, PARTIAL["staleness"])
    assert config(**PARTIAL).batches_ahead * BATCH == queue.capacity


def test_what_cannot_go_on_over_an_update_is_refused() -> None:
    for changes, text in (
        ({"staleness": 1}, "stages.rl.staleness to 2 or more"),
        ({"dynamic_sampling_rounds": 2}, "stages.rl.dynamic_sampling_rounds=2: .*=finish"),
    ):
        options = config(**{**PARTIAL, **changes})
        with pytest.raises(UserError, match=text):
            options.check("stages.rl", HardwareConfig())
