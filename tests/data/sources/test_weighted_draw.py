"""Problems by weight of their level, from tables and generators."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.config.identity import identity_of
from reasoning_lab.config.problems import DrawWeights, ProblemsConfig
from reasoning_lab.data.sources.mixture import weighted
from reasoning_lab.data.sources.weighted_draw import WeightedLevels
from reasoning_lab.types import Problem, Split, UserError
from tests.conftest import Compose
from tests.support.sources import file_source, write_lines


def test_levels_come_by_their_weights(tmp_path: Path) -> None:
    """120 problems of each of three levels, of which 3 and 1 are wanted as 3 to 1."""
    rows = [
        {"prompt": f"{level}.{n}?", "gold": "1", "level": level}
        for level in (1, 2, 3)
        for n in range(120)
    ]
    source = file_source(write_lines(tmp_path / "rows.jsonl", rows))
    weights = DrawWeights({1: 1, 3: 3})
    drawable = weighted(source, weights)
    problems = list(drawable.problems(Split.TRAIN, [1, 3], 90, 0))
    assert len({problem.id for problem in problems}) == 90
    # 22.5 and 67.5: one of them is rounded up.
    levels = Counter(problem.level for problem in problems)
    assert levels.keys() == {1, 3}
    assert levels[1] in (22, 23)
    # They alternate, so that every part of a stage has both.
    assert 3 <= Counter(problem.level for problem in problems[:30])[1] <= 13
    assert problems == list(drawable.problems(Split.TRAIN, [1, 3], 90, 0))
    assert problems != list(drawable.problems(Split.TRAIN, [1, 3], 90, 1))
    with pytest.raises(UserError, match=r"120 distinct train prompts at levels \[3\], 150"):
        list(drawable.problems(Split.TRAIN, [1, 3], 200, 0))
    assert weighted(source, DrawWeights()) is source


class SharedPrompts:
    """A generator that makes every second prompt of level 2 as one of level 1, too."""

    def problems(
        self, split: Split, levels: Sequence[int] | None, count: int, seed: int
    ) -> Iterator[Problem]:
        assert levels is not None
        (level,) = levels
        for n in range(count):
            name = f"both {n}" if n % 2 else f"{level} {n}"
            yield Problem(name, "1", "math", "f", level)


def test_a_prompt_that_two_levels_have_comes_once() -> None:
    drawn = WeightedLevels(SharedPrompts(), {1: 1, 2: 1}).problems(Split.TRAIN, [1, 2], 40, 0)
    problems = list(drawn)
    assert len({problem.id for problem in problems}) == 40
    assert Counter(problem.level for problem in problems) == {1: 20, 2: 20}


def test_a_level_of_weight_zero_is_not_drawn(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "gold": "1", "level": 1 + n % 2} for n in range(20)]
    source = file_source(write_lines(tmp_path / "rows.jsonl", rows))
    problems = WeightedLevels(source, {1: 0, 2: 1}).problems(Split.TRAIN, [1, 2], 8, 0)
    assert {problem.level for problem in problems} == {2}


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ({1: 1.0}, r"names levels \[1\], and p\.levels are \[1, 2\]"),
        ({1: 1.0, 2: 1.0, 3: 1.0}, r"names levels \[1, 2, 3\]"),
        ({1: -1.0, 2: 2.0}, "are no shares"),
        ({1: 0.0, 2: 0.0}, "are no shares"),
    ],
)
def test_weights_that_are_no_shares_are_refused(weights: dict[int, float], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        ProblemsConfig([1, 2], 9, weights).check("p")


def test_weights_are_identity_only_where_they_are_set() -> None:
    plain = ProblemsConfig([1, 2], 9)
    assert "level_weights" not in identity_of(plain)
    assert "source_weights" not in identity_of(plain)
    assert identity_of(ProblemsConfig([1, 2], 9, {1: 1, 2: 3})) != identity_of(plain)
    assert identity_of(ProblemsConfig([1, 2], 9, {}, {"gym": 2})) != identity_of(plain)


@pytest.mark.parametrize("stage", ["pretrain", "distill", "prefer", "rl"])
def test_every_stage_that_draws_problems_draws_them_by_weight(
    stage: str, composed: Compose
) -> None:
    key = f"stages.{stage}.problems"
    words = [f"{key}.levels=[1,3]", f"{key}.count=80", f"{key}.level_weights={{1: 1, 3: 3}}"]
    words += [f"{key}.source_weights={{gym: 2}}"]
    option = ["stage@stages.prefer=prefer"] if stage == "prefer" else []
    recipe = composed("experiment=smoke", *option, *words)
    (node,) = [node for node in recipe.nodes if node.name == stage]
    draws: list[Any] = list(node.stage.problem_draws(f"stages.{stage}"))  # type: ignore[attr-defined]
    assert draws
    assert all(draw.weights == DrawWeights({1: 1, 3: 3}, {"gym": 2}) for draw in draws)
    with pytest.raises(UserError, match=rf"{key}\.level_weights: it names levels"):
        composed("experiment=smoke", *option, f"{key}.levels=[1,2]", *words[1:])


@pytest.mark.parametrize("weights", ["level_weights={1: 1}", "source_weights={gym: 1}"])
def test_pairs_of_a_corpus_take_no_weights(weights: str, composed: Compose) -> None:
    with pytest.raises(UserError, match=r"_weights: this stage takes the corpus's problems"):
        composed(
            "experiment=smoke",
            "stage@stages.prefer=prefer_mixed",
            f"stages.prefer.problems.{weights}",
        )
