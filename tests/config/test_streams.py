"""Streams of the shipped recipes: fresh prompts for pairs and RL, unless one says otherwise."""

from itertools import combinations

import pytest

from tests.support.composition import composed_config


def streams(*overrides: str) -> list[list[float]]:
    """Of each stage that draws problems."""
    stages = composed_config(*overrides).stages.values()
    return [list(stage.problems.stream) for stage in stages if "problems" in stage]


@pytest.mark.parametrize(
    ("overrides", "stages"),
    [
        (["recipe=tiny"], 4),
        (["recipe=paper"], 2),
        (["experiment=phi4_mini_reasoning"], 2),
        (["recipe=paper", "stage@stages.prefer=prefer"], 3),
    ],
)
def test_no_two_stages_share_a_prompt(overrides: list[str], stages: int) -> None:
    bounds = streams(*overrides)
    assert len(bounds) == stages
    for (low, high), (other_low, other_high) in combinations(bounds, 2):
        assert high <= other_low or other_high <= low


@pytest.mark.parametrize("option", ["recipe=own", "experiment=gsm8k", "experiment=smoke"])
def test_small_data_is_not_shared_out(option: str) -> None:
    assert all(bounds == [0, 1] for bounds in streams(option))
