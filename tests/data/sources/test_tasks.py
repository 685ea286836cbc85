"""A taskset of `verifiers` as a source of problems, with the real package where it is installed."""

import importlib.util

import pytest

from reasoning_lab.data.sources.config import TasksetConfig
from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.types import Completion, Message, Rollout, Split, UserError, Verdict
from tests.rewards.test_environment import rewards, sums  # noqa: F401 - a fixture


def taskset(name: str = "Sums", **options: object) -> TasksetConfig:
    return TasksetConfig(
        taskset=f"sums_of_a_test.{name}",
        options=options,
        rows=RowMapping(gold="answer"),
        test_frac=0.0,
        validation_frac=0.0,
    )


@pytest.mark.usefixtures("sums")
def test_one_taskset_asks_and_rewards() -> None:
    source = taskset().build()
    assert source.available(Split.TRAIN, None) == 4
    problems = {problem.prompt: problem for problem in source.problems(Split.TRAIN, None, 4, 0)}
    golds = {prompt: problem.gold for prompt, problem in problems.items()}
    assert golds == {"0 + 1?": "1", "1 + 1?": "2", "and one more?": "3", "9 + 1?": "10"}
    system, user = Message("system", "Be brief."), Message("user", "1 + 1?")
    answer = Message("assistant", "2")
    assert problems["0 + 1?"].earlier_messages == ()
    assert problems["9 + 1?"].earlier_messages == (system,)
    assert problems["and one more?"].earlier_messages == (system, user, answer)
    for problem in problems.values():
        for text, reward in ((problem.gold, 20.0), ("no", 0.0)):
            completion = Completion([1], f"\n</think>\n{text}")
            rollout = Rollout(problem, completion, text, Verdict.WRONG, "policy")
            assert rewards().terms(rollout) == {"sums": reward}


@pytest.mark.usefixtures("sums")
def test_the_tasks_identify_it() -> None:
    assert taskset().content() == taskset(most=2).content() != taskset(most=3).content()
    assert taskset(most=3).build().available(Split.TRAIN, None) == 5


@pytest.mark.usefixtures("sums")
@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (taskset("Somes"), r"^data\.taskset: there is no 'sums_of_a_test\.Somes'"),
        (taskset(most="x"), r"^data\.options: 'sums_of_a_test\.Sums' refuses them"),
        (taskset("Running"), r"^data\.taskset: task 0 of .* asks for a runtime"),
        (taskset("Nothing"), r"^data\.taskset: 'sums_of_a_test\.Nothing' has no task"),
    ],
)
def test_what_asks_no_problem_is_refused(config: TasksetConfig, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        config.build()


def test_a_missing_package_is_named_with_its_remedy() -> None:
    if importlib.util.find_spec("verifiers") is not None:
        pytest.skip("it is installed")
    with pytest.raises(UserError, match=r"^data\.taskset: .* run pip install .*\[verifiers\]"):
        taskset().build()
