"""A corpus's levels by the pass rate of its teacher."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from reasoning_lab.config.components import TeacherConfig
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.data.corpus import read_rollouts
from reasoning_lab.data.teachers.teacher import SolutionWriter
from reasoning_lab.stages.distill.produce import run
from reasoning_lab.stages.distill.stage import DistillStage
from reasoning_lab.training.context import StageContext
from reasoning_lab.types import Completion, Problem, UserError
from reasoning_lab.verify import Verifier
from tests.support.contexts import data_context
from tests.support.sources import file_source

PROBLEMS = 20


@dataclass
class ChangingTeacher(TeacherConfig):
    """Writes other solutions of a problem in turn."""

    answers: dict[str, list[str]] = field(default_factory=dict)

    name = "changing"

    def build(self) -> "ChangingTeacher":
        return self

    def open(self, hardware: HardwareConfig) -> AbstractContextManager[SolutionWriter]:
        return nullcontext(self._write)

    def refusal(self, problem: Problem) -> str | None:
        return None

    def preview(self, problem: Problem, seed: int) -> Sequence[str]:
        return []

    def _write(
        self, problems: Sequence[Problem], samples: int, seed: int
    ) -> list[list[Completion]]:
        return [
            [Completion([], f"<think>\n{text}") for text in self.answers[problem.prompt][:samples]]
            for problem in problems
        ]


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(workers=1, timeout_s=20, memory_mb=1024) as shared:
        yield shared


@pytest.fixture
def context(tmp_path: Path, verifier: Verifier) -> StageContext:
    rows = tmp_path / "numbers.jsonl"
    rows.write_text(
        "".join(f'{{"prompt": "number {n}", "gold": "{n}"}}\n' for n in range(2 * PROBLEMS))
    )
    source = file_source(str(rows), 0.1, 0.2, {"family": "numbers"})
    return data_context(tmp_path, "distill", source, verifier)


def config(
    answers: Mapping[str, list[str]], rollouts: int, pass_rates: list[float]
) -> DistillStage:
    return DistillStage(
        teacher=ChangingTeacher(dict(answers)),
        problems=ProblemsConfig(levels=[1], count=PROBLEMS),
        validation=4,
        rollouts=rollouts,
        level_pass_rates=pass_rates,
        shard_problems=6,
    )


def test_pass_rates_are_levels(context: StageContext) -> None:
    """Of a problem's four rollouts so many are right: 4, 3, 2, 1, then 0."""
    right = {f"number {n}": 4 - n % 5 for n in range(2 * PROBLEMS)}
    answers = {
        prompt: [f"hm\n</think>\n\\boxed{{{prompt[7:] if k < count else -1}}}" for k in range(4)]
        for prompt, count in right.items()
    }
    run(config(answers, 4, [0.75, 0.25]), context)
    accepted = read_rollouts(context.out_dir / "accepted.parquet")
    levels = {rollout.problem.prompt: rollout.problem.level for rollout in accepted}
    expected = {4: 1, 3: 1, 2: 2, 1: 2}
    assert levels == {prompt: expected[right[prompt]] for prompt in levels}
    assert set(levels.values()) == {1, 2}
    rejected = {
        rollout.problem.level for rollout in read_rollouts(context.out_dir / "rejected.parquet")
    }
    assert rejected == {1, 2, 3}


def test_one_rollout_says_nothing_of_difficulty(context: StageContext) -> None:
    answers = {
        f"number {n}": [f"hm\n</think>\n\\boxed{{{n - n % 2}}}"] for n in range(2 * PROBLEMS)
    }
    run(config(answers, 1, [1.0]), context)
    files = [context.out_dir / f"{name}.parquet" for name in ("accepted", "rejected")]
    corpora = [read_rollouts(file) for file in files]
    assert [{one.problem.level for one in rollouts} for rollouts in corpora] == [{1}, {1}]


@pytest.mark.parametrize("bounds", [[], [0.25, 0.75], [0.5, 0.5], [1.5], [0.5, 0.0]])
def test_bounds_that_do_not_fall_are_refused(bounds: list[float]) -> None:
    with pytest.raises(UserError, match="no falling pass rates"):
        config({}, 1, bounds).check("stages.distill", HardwareConfig())
