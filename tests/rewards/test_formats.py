"""The format reward, whoever opens the thought."""

import pytest

from reasoning_lab.rewards import reasoning_format
from reasoning_lab.rewards.weighted import WeightedRewards
from tests.support.rewards import WELL_FORMED, rollout, term


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (WELL_FORMED, 1.0),
        ("\n" + WELL_FORMED + "\n", 1.0),
        ("1 + 1 = 2\n\\boxed{2}", 0.0),
        ("<think>\n</think>", 0.0),
        (WELL_FORMED.replace("</think>", ""), 0.0),
        (WELL_FORMED + "\\boxed{3}", 0.0),
        (WELL_FORMED.replace("1 + 1", "\\boxed{2}"), 0.0),
        ("Well. " + WELL_FORMED, 0.0),
        ("<think>" + WELL_FORMED, 0.0),
        (WELL_FORMED + "<think>again", 0.0),
    ],
)
def test_reasoning_format(text: str, good: float) -> None:
    assert reasoning_format(text) == good


@pytest.mark.parametrize("opened", ["", "<think>\n", "<think>"])
@pytest.mark.parametrize(
    ("text", "good"),
    [
        (WELL_FORMED, 1.0),
        (WELL_FORMED.replace("</think>", ""), 0.0),
        (WELL_FORMED + "\\boxed{3}", 0.0),
        (WELL_FORMED.replace("1 + 1", "\\boxed{2}"), 0.0),
        ("<think>" + WELL_FORMED, 0.0),
        ("<think>\n</think>\n\\boxed{2}", 0.0),
    ],
)
def test_the_format_reward_is_one_whoever_opens_the_thought(
    text: str, good: float, opened: str
) -> None:
    """Twins: the same turn, begun by the template or by the completion."""
    composed = WeightedRewards({"format": term("reasoning_format")}, 40, "rewards", opened)
    written = text.removeprefix("<think>") if opened else text
    assert composed.terms(rollout(text=written)) == {"format": good}
