"""Which prompts a curriculum draws, and that what was observed of them is never lost."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.stages.rl.curriculum import Curriculum
from reasoning_lab.stages.rl.options import CurriculumConfig
from reasoning_lab.stages.rl.prompts import PromptPlan
from reasoning_lab.stages.rl.records import DropReason, RewardedGroup, RewardedRollout
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.types import Problem, UserError
from tests.support.rollouts import group
from tests.support.stages import optimization


def config(batch_size: int = 2, rounds: int = 0, staleness: int = 0, **changes: Any) -> RLStage:
    options = {"draw": "learnability", "half_life_steps": 1e9, "prior_rollouts": 2.0, **changes}
    return RLStage(
        group_size=4,
        max_new_tokens=9,
        staleness=staleness,
        dynamic_sampling_rounds=rounds,
        curriculum=CurriculumConfig(**options),
        optimization=optimization(batch_size=batch_size, length="9 steps"),
    )


def rewarded(verdicts: str, unjudged: int = 0) -> RewardedGroup:
    """One rollout a letter, of which the last ones are judged by no reward."""
    sampled = group(verdicts)
    last = len(verdicts) - unjudged
    return RewardedGroup(
        sampled.problem,
        [
            RewardedRollout(one, {}, 1.0, dropped=None if place < last else DropReason.UNJUDGED)
            for place, one in enumerate(sampled.rollouts)
        ],
    )


def observe(curriculum: Curriculum, step: int, **verdicts: str) -> None:
    places = [int(name[1:]) for name in verdicts]
    curriculum.observe(step, places, [rewarded(letters) for letters in verdicts.values()])


def test_a_pass_rate_forgets_at_its_half_life_and_begins_at_a_half() -> None:
    curriculum = Curriculum(config(half_life_steps=2.0), 3, seed=0)
    assert curriculum.pass_rates().tolist() == [0.5] * 3
    curriculum.observe(0, [0, 1], [rewarded("cccw"), rewarded("wwwwccc", unjudged=3)])
    # A step later a rollout counts 2 ** -0.5; the prior is one correct and one incorrect.
    decay = 2**-0.5
    expected = [(3 * decay + 1) / (4 * decay + 2), 1 / (4 * decay + 2), 0.5]
    assert curriculum.pass_rates() == pytest.approx(expected)
    observe(curriculum, 1, p2="c", p0="w")
    # After a step more it counts half, and those between as they did.
    expected = [(3 / 2 + 1) / (4 / 2 + decay + 2), 1 / (4 / 2 + 2), (decay + 1) / (decay + 2)]
    assert curriculum.pass_rates() == pytest.approx(expected)
    assert curriculum.weights() == pytest.approx([p * (1 - p) for p in expected])
    # Of the second step's prompts, before it: of p2 nothing was known.
    before = [0.5, (3 * decay + 1) / (4 * decay + 2)]
    assert curriculum.metrics["pass_rate_mean"] == pytest.approx(np.mean(before))
    observe(curriculum, 400, p2="c")
    assert curriculum.pass_rates()[:2] == pytest.approx([0.5, 0.5])


def test_prompts_are_drawn_by_their_weights_without_replacement() -> None:
    curriculum = Curriculum(config(), 3, seed=5)
    # With the prior: 10 of 20, 1 of 20, and 20 of 22, which is 1/2, 1/20 and 10/11.
    observe(curriculum, 0, p0="ccccccccc" + "wwwwwwwww", p1="w" * 18, p2="c" * 19 + "w")
    weights = np.array([1 / 4, 19 / 400, 10 / 121])
    assert curriculum.weights() == pytest.approx(weights)
    effective = weights.sum() ** 2 / (weights**2).sum()
    assert curriculum.metrics["effective_prompts"] == pytest.approx(effective)
    steps = 2000
    draws = Counter(tuple(curriculum.places(step)[0]) for step in range(1, steps + 1))
    shares = weights / weights.sum()
    for first in range(3):
        for second in set(range(3)) - {first}:
            chance = shares[first] * shares[second] / (1 - shares[first])
            deviation = (chance * (1 - chance) / steps) ** 0.5
            assert abs(draws[first, second] / steps - chance) < 4 * deviation
    assert draws.total() == sum(draws[pair] for pair in draws if pair[0] != pair[1])


def test_a_prompt_that_is_always_solved_or_failed_rests_and_comes_back() -> None:
    curriculum = Curriculum(config(rest_steps=3, rest_rollouts=8), 4, seed=0)
    observe(curriculum, 0, p0="cccc", p1="wwww", p2="cccc", p3="wwwc")
    assert {curriculum.metrics[key] for key in ("resting_solved", "resting_failed")} == {0}
    observe(curriculum, 1, p0="cccc", p1="uttw", p2="cccw", p3="wwww")
    assert curriculum.metrics["resting_solved"] == 1  # p0
    assert curriculum.metrics["resting_failed"] == 1  # p1; of p3 four are known since the last c
    for step in (2, 3, 4):
        assert sorted(curriculum.places(step)[0]) == [2, 3]
        observe(curriculum, step, p3="wwwc")
    drawn = {place for step in range(5, 40) for place in curriculum.places(step)[0]}
    assert drawn == {0, 1, 2, 3}
    assert curriculum.metrics["recalled"] == 0
    # One group of the same kind sends it to rest again, and one of another kind does not.
    observe(curriculum, 5, p0="cccc", p1="wcww")
    assert curriculum.metrics["resting_solved"] == 1
    assert curriculum.metrics["resting_failed"] == 0
    ledger = Ledger()
    curriculum.record(ledger)
    flow = ledger.flows["pool_prompts"]
    assert (flow.taken, flow.passed, flow.unplanned) == (4, 3, 0)
    assert flow.dropped == {"resting_solved": 1}


def test_resting_prompts_are_recalled_where_a_batch_lacks_others_and_replace_none() -> None:
    curriculum = Curriculum(config(3, rounds=2, rest_steps=5, rest_rollouts=4), 5, seed=0)
    observe(curriculum, 0, p0="cccc", p1="wwww", p2="wwww")
    chosen, replacements = curriculum.places(1)
    # Who is awake comes first, and no resting prompt replaces a dropped one.
    assert {3, 4} == set(chosen[:2])
    assert {0, 1, 2} > set(chosen[2:])
    assert replacements == []
    observe(curriculum, 1, p3="cw")
    assert curriculum.metrics["recalled"] == 1
    assert curriculum.metrics["never_drawn_frac"] == 2 / 5
    # As many may replace dropped ones as two rounds can take.
    chosen, replacements = Curriculum(config(3, rounds=2), 12, seed=0).places(0)
    assert len(set(chosen) | set(replacements)) == 3 + 6
    # A pool that is smaller than the batch comes several times over.
    chosen, _ = Curriculum(config(7, rounds=1), 3, seed=0).places(0)
    assert sorted(chosen)[2:5] == [1, 1, 1] or sorted(Counter(chosen).values()) == [2, 2, 3]


def through_a_file(state: Any, folder: Path) -> Any:
    torch.save(state, folder / "state")
    return torch.load(folder / "state", weights_only=True)


def test_a_state_goes_on_to_the_same_draws_whoever_asks_first(tmp_path: Path) -> None:
    options = config(rounds=1, staleness=2, half_life_steps=3.0, rest_steps=2, rest_rollouts=4)
    letters = ["cccc", "wwww", "cwcw", "ccwc", "wwwc"]

    def run(curriculum: Curriculum, first: int, last: int) -> list[Any]:
        seen = []
        for step in range(first, last):
            ahead = [curriculum.places(number)[0] for number in range(step, step + 3)]
            places = curriculum.places(step)[0]
            groups = [rewarded(letters[(place + step) % 5]) for place in places]
            curriculum.observe(step, places, groups)
            seen.append((ahead, curriculum.metrics))
        return seen

    expected = run(Curriculum(options, 9, seed=1), 0, 12)
    assert len({tuple(map(tuple, ahead)) for ahead, _ in expected}) > 9
    for stop in range(1, 12):
        first = Curriculum(options, 9, seed=1)
        before = run(first, 0, stop)
        state = through_a_file(first.state_dict(), tmp_path)
        second = Curriculum(options, 9, seed=1)
        second.load_state_dict(state)
        assert before + run(second, stop, 12) == expected
        # What is saved does not grow with the steps.
        assert len(state["draws"]) <= 2 * options.staleness + 1


def test_a_plan_observes_the_prompts_that_it_asked_and_those_that_replaced_them() -> None:
    pool = [Problem(f"p{number}", "1", "math", "f") for number in range(6)]
    plan = PromptPlan(config(rounds=1), pool, seed=0)
    assert plan.curriculum is not None
    batch = plan[0]
    asked = [*batch.problems, batch.replacements[0]]
    groups = [replace(rewarded("cccccccc"), problem=problem) for problem in asked]
    plan.observe_step(0, groups)
    rates = dict(zip((one.prompt for one in pool), plan.curriculum.pass_rates(), strict=True))
    solved = {problem.prompt for problem in asked}
    expected = {name: 0.9 if name in solved else 0.5 for name in rates}
    assert rates == pytest.approx(expected)
    # By numbers, also behind the last step; the third is the first of the second step.
    other = PromptPlan(config(), pool, seed=0)
    assert other.curriculum is not None
    numbers = [2, 2 * len(other) + 1]
    others = [replace(rewarded("wwwwwwww"), problem=other.problem(number)) for number in numbers]
    assert others[0].problem == other[1].problems[0]
    other.observe_groups(1, numbers, others)
    rates = dict(zip((one.prompt for one in pool), other.curriculum.pass_rates(), strict=True))
    failed = {one.problem.prompt for one in others}
    assert {name for name, rate in rates.items() if rate == pytest.approx(0.1)} == failed


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"curriculum": CurriculumConfig(rest_steps=4)}, "draw=epochs looks at no pass rates"),
        (
            {"optimization": optimization(overfit_batches=1)},
            "curriculum.draw=learnability: with overfit_batches",
        ),
        (
            {
                "curriculum": CurriculumConfig(draw="uniform", rest_steps=4),
                "advantage": "reinforce_pp",
            },
            "rest_steps=4: reinforce_pp learns from prompts that are always solved",
        ),
    ],
)
def test_a_curriculum_that_cannot_hold_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        replace(config(), **changes).check("stages.rl", HardwareConfig())
