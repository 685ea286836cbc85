"""A taskset of `verifiers` as a reward, with the real package where it is installed."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.rewards.weighted import WeightedRewards
from reasoning_lab.types import Completion, Message, Problem, Rollout, UserError, Verdict

KEY = "stages.rl.rewards"
MODULE = """
import verifiers.v1 as vf


class SumData(vf.TaskData):
    answer: str = ""


class SumTask(vf.Task[SumData, vf.State, vf.TaskConfig]):
    @vf.reward(weight=2.0)
    async def exact(self, task: SumData, trace: vf.Trace) -> float:
        return float(trace.last_reply == task.answer)

    @vf.reward(weight=-0.5)
    async def thinks_long(self, trace: vf.Trace) -> float:
        return float(len(trace.assistant_messages[-1].reasoning_content or "") > 5)

    @vf.metric
    async def turns(self, trace: vf.Trace) -> float:
        return float(len(trace.messages))


class SumConfig(vf.TasksetConfig):
    most: int = 2


class Sums(vf.Taskset[SumTask, SumConfig]):
    def load(self):
        chat = [vf.SystemMessage(content="Be brief."), vf.UserMessage(content="1 + 1?"),
                vf.AssistantMessage(content="2"), vf.UserMessage(content="and one more?")]
        for number in range(self.config.most):
            yield SumTask(SumData(prompt=f"{number} + 1?", answer=str(number + 1)))
        yield SumTask(SumData(prompt=chat, answer="3"))
        yield SumTask(SumData(system_prompt="Be brief.", prompt="9 + 1?", answer="10"))


class RunningTask(SumTask):
    @vf.reward
    async def tests(self, trace: vf.Trace, runtime: vf.Runtime) -> float:
        return 1.0


class Pictures(vf.Taskset[SumTask, vf.TasksetConfig]):
    def load(self):
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
        parts = [{"type": "text", "text": "What is this?"}, picture]
        yield SumTask(SumData(prompt=[vf.UserMessage(content=parts)]))


class Nothing(vf.Taskset[SumTask, vf.TasksetConfig]):
    def load(self):
        return []


class Running(vf.Taskset[RunningTask, vf.TasksetConfig]):
    def load(self):
        yield RunningTask(SumData(prompt="x"))
"""


@pytest.fixture
def sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("verifiers.v1")
    (tmp_path / "sums_of_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("REASONING_LAB_TRUSTED", "sums_of_a_test")


def rewards(taskset: str = "sums_of_a_test.Sums", **options: Any) -> WeightedRewards:
    term = {"_target_": "reasoning_lab.rewards.environment.taskset_reward", "taskset": taskset}
    return WeightedRewards({"sums": {**term, "weight": 10, **options}}, 99, KEY, "<think>\n")


def terms(prompt: str, text: str, *earlier: Message, **options: Any) -> dict[str, float] | None:
    problem = Problem(prompt, "no gold", "math", "f", earlier_messages=earlier)
    rollout = Rollout(problem, Completion([1], text), None, Verdict.WRONG, "policy")
    return rewards(**options).terms(rollout)


@pytest.mark.usefixtures("sums")
def test_a_task_scores_the_completion_of_its_prompt() -> None:
    assert terms("1 + 1?", "one, and one is two\n</think>\n2") == {"sums": 10 * (2.0 - 0.5)}
    assert terms("1 + 1?", "two\n</think>\n2") == {"sums": 20.0}
    assert terms("1 + 1?", "\n</think>\n3") == {"sums": 0.0}
    # A thought without an end has no reply.
    assert terms("1 + 1?", "it is 2") == {"sums": -5.0}
    assert terms("5 + 1?", "\n</think>\n6") is None
    assert terms("5 + 1?", "\n</think>\n6", options={"most": 6}) == {"sums": 20.0}


@pytest.mark.usefixtures("sums")
def test_a_conversation_finds_its_task_by_what_the_user_says() -> None:
    earlier = (Message("system", "Be brief."), Message("user", "1 + 1?"), Message("assistant", "2"))
    assert terms("and one more?", "\n</think>\n3", *earlier) == {"sums": 20.0}
    assert terms("and one more?", "\n</think>\n3") is None


@pytest.mark.usefixtures("sums")
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"taskset": "sums_of_a_test.Running"}, "taskset: task 0 .* reward 'tests' that asks"),
        ({"taskset": "sums_of_a_test.Pictures"}, "taskset: task 0 .* that is not text alone"),
        ({"taskset": "sums_of_a_test.SumTask"}, "taskset: .* is no verifiers.v1.Taskset"),
        ({"taskset": "sums_of_a_test.Somes"}, "taskset: there is no 'sums_of_a_test.Somes'"),
        ({"taskset": "os.path"}, "taskset: 'os.path' may not be named in a config"),
        ({"options": {"most": "x"}}, "options: 'sums_of_a_test.Sums' refuses them"),
    ],
)
def test_what_cannot_be_a_reward_is_refused_before_it_runs(
    options: dict[str, Any], text: str
) -> None:
    with pytest.raises(UserError, match=rf"{KEY}\.sums\.{text}"):
        rewards(**options)


def test_a_missing_package_is_named_with_its_remedy() -> None:
    if importlib.util.find_spec("verifiers") is not None:
        pytest.skip("it is installed")
    with pytest.raises(UserError, match=r"'verifiers' is not installed; run pip install .*\[verif"):
        rewards()
