"""Which prompts are screened out, and which each step gets."""

import random
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.data.problem_file import ProblemFile
from reasoning_lab.stages.rl.options import FilterConfig
from reasoning_lab.stages.rl.prompts import PromptPlan, prompt_batches, screening_reason
from reasoning_lab.stages.rl.records import DropReason
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.types import Problem
from tests.support.rollouts import group
from tests.support.stages import optimization

POOL = [Problem(f"p{number}", "1", "math", "f") for number in range(7)]


@pytest.mark.parametrize(
    ("verdicts", "changes", "reason"),
    [
        ("cw", {}, None),
        ("ww", {}, DropReason.NO_SIGNAL),
        ("cc", {}, DropReason.NO_SIGNAL),
        ("cc", {"signal": "reward"}, None),
        ("ccw", {"filter": FilterConfig(max_pass_rate=0.5)}, DropReason.EASY),
        ("cw", {"filter": FilterConfig(max_length_variation=0.0)}, DropReason.UNEVEN),
    ],
)
def test_screening_names_its_reason(
    verdicts: str, changes: dict[str, Any], reason: DropReason | None
) -> None:
    assert screening_reason(RLStage(**changes), group(verdicts)) is reason


def test_steps_have_their_prompts_and_replacements() -> None:
    config = RLStage(optimization=optimization(batch_size=3), dynamic_sampling_rounds=1)
    plan = PromptPlan(config, POOL, seed=0)
    batches = list(prompt_batches(plan))
    assert [batch.step for batch in batches] == list(range(len(plan)))
    for batch in batches:
        assert len(batch.problems) == 3
        chosen = {problem.id for problem in batch.problems}
        replacements = {problem.id for problem in batch.replacements}
        assert len(replacements) == len(batch.replacements)
        assert chosen.isdisjoint(replacements)
        assert chosen | replacements == {problem.id for problem in POOL}
    # A schedule reads steps ahead, by the same plan.
    ahead = plan[2:4]
    assert [batch.problems for batch in ahead] == [batch.problems for batch in batches[2:4]]
    plain = PromptPlan(RLStage(optimization=optimization(batch_size=3)), POOL, seed=0)
    for batch, filled in zip(prompt_batches(plain), batches, strict=True):
        assert batch.problems == filled.problems
        assert list(batch.replacements) == []


def test_prompts_on_the_disk_are_those_of_a_list(tmp_path: Path) -> None:
    config = RLStage(optimization=optimization(batch_size=3), dynamic_sampling_rounds=2)
    from_disk = prompt_batches(PromptPlan(config, ProblemFile(POOL, tmp_path), seed=4))
    for batch in from_disk:
        chosen = [POOL.index(problem) for problem in batch.problems]
        others = [number for number in range(7) if number not in chosen]
        random.Random(f"4/{batch.step}/spare").shuffle(others)
        assert list(batch.replacements) == [POOL[number] for number in others]
    from_list = list(prompt_batches(PromptPlan(config, POOL, seed=4)))
    resumed = prompt_batches(PromptPlan(config, ProblemFile(POOL, tmp_path), seed=4))
    resumed.load_state_dict({"next": 2})
    assert [batch.problems for batch in resumed] == [batch.problems for batch in from_list[2:]]
