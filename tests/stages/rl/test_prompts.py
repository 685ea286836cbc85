"""Which prompts are screened out, and which each step gets."""

from typing import Any

import pytest

from reasoning_lab.stages.rl.prompts import prompt_batches, screening_reason
from reasoning_lab.stages.rl.records import DropReason
from reasoning_lab.stages.rl.stage import FilterConfig, RLStage
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


def test_steps_have_their_prompts_replacements_and_the_next_step() -> None:
    config = RLStage(
        optimization=optimization(batch_size=3), dynamic_sampling_rounds=1, staleness=1
    )
    batches = list(prompt_batches(config, POOL, seed=0))
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        assert len(batch.problems) == 3
        chosen = {problem.id for problem in batch.problems}
        replacements = {problem.id for problem in batch.replacements}
        assert len(replacements) == len(batch.replacements)
        assert chosen.isdisjoint(replacements)
        assert chosen | replacements == {problem.id for problem in POOL}
        if following is None:
            assert batch.next_batch is None
        else:
            assert batch.next_batch.problems == following.problems
            assert batch.next_batch.replacements == following.replacements
    plain = RLStage(optimization=optimization(batch_size=3))
    for batch, filled in zip(prompt_batches(plain, POOL, seed=0), batches, strict=True):
        assert batch.problems == filled.problems
        assert (batch.replacements, batch.next_batch) == ([], None)
