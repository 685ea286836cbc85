"""Streams of the training split: apart whatever the seed, as long as asked for, and counted."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from reasoning_lab.config.problems import DrawWeights, ProblemsConfig
from reasoning_lab.data.sources.canonical import form_id
from reasoning_lab.data.sources.config import ReasoningGymConfig
from reasoning_lab.data.sources.draw_counts import draws_counted
from reasoning_lab.data.sources.mixture import weighted
from reasoning_lab.data.sources.problem_source import number_of
from reasoning_lab.data.sources.streams import Stream, stream_of
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.types import Problem, Split, UserError
from tests.support.sources import file_source

KEY = "stages.rl.problems"
# Sums and differences of two digits.
SUMS = {"chain_sum": {1: {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}}}
GCD = {"gcd": {1: {"min_value": 2, "max_value": 60}, 2: {"min_value": 2, "max_value": 60}}}


def place(problem: Problem) -> float:
    """The last eight of the form's hex digits, as a fraction."""
    return int(form_id(problem)[8:], 16) / 2**32


def drawn(bounds: tuple[float, float], count: int, seed: int) -> list[Problem]:
    source = stream_of(ReasoningGymConfig(GCD, 0.1, 0.1), bounds, KEY)
    return list(source.problems(Split.TRAIN, [1], count, seed))


def test_streams_share_no_form_and_are_as_long_as_asked_for() -> None:
    first, second = drawn((0.0, 0.5), 200, 1), drawn((0.5, 1.0), 200, 2)
    assert len(first) == len(second) == 200
    assert all(place(problem) < 0.5 for problem in first)
    assert all(place(problem) >= 0.5 for problem in second)
    assert not set(map(form_id, first)) & set(map(form_id, second))
    assert first == drawn((0.0, 0.5), 200, 1) != drawn((0.0, 0.5), 200, 3)


def test_the_other_splits_are_whole() -> None:
    source = ReasoningGymConfig(GCD, 0.1, 0.1)
    for split in (Split.VALIDATION, Split.TEST):
        whole = list(source.problems(split, [1], 20, 0))
        assert list(Stream(source, (0.9, 1.0), KEY).problems(split, [1], 20, 0)) == whole


def test_a_stream_that_is_too_short_says_what_to_do() -> None:
    source = ReasoningGymConfig(SUMS, 0.0, 0.0)
    with pytest.raises(UserError) as error:
        list(Stream(source, (0.8, 1.0), KEY).problems(Split.TRAIN, [1], 80, 0))
    forms = {form_id(problem) for problem in everything(source)}
    count = sum(int(form[8:], 16) / 2**32 >= 0.8 for form in forms)
    sentence = str(error.value)
    assert sentence.startswith(f"{KEY}.stream=[0.8, 1.0]: this part of the training split of ")
    assert f"'reasoning-gym: chain_sum' has {count} " in sentence
    assert "80 are asked for" in str(error.value)
    assert "up to [0.0, 1.0]" in str(error.value)


def everything(source: ReasoningGymConfig) -> Iterator[Problem]:
    """All that a small source has, which it yields before it says that there is no more."""
    with pytest.raises(UserError, match="distinct train prompts"):
        yield from source.problems(Split.TRAIN, None, 10_000, 0)


def test_another_mistake_keeps_its_own_words() -> None:
    source = Stream(ReasoningGymConfig(SUMS, 0.0, 0.0), (0.5, 1.0), KEY)
    with pytest.raises(UserError, match=r"^data: no family is at levels \[7\]"):
        list(source.problems(Split.TRAIN, [7], 5, 0))


def test_a_file_has_streams_and_counts_them(tmp_path: Path) -> None:
    path = tmp_path / "sums.jsonl"
    rows = [{"prompt": f"How much is {n} times {n}?", "gold": str(n * n)} for n in range(400)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = file_source(str(path), 0.0, 0.0, {"checker": "number"})
    streams = [stream_of(source, bounds, KEY) for bounds in ((0.0, 0.7), (0.7, 1.0))]
    counts = [number_of(stream, Split.TRAIN, None, "all", KEY) for stream in streams]
    assert sum(counts) == 400
    assert 240 < counts[0] < 320
    problems = [
        list(stream.problems(Split.TRAIN, None, count, 0))
        for stream, count in zip(streams, counts, strict=True)
    ]
    assert len({problem.id for of_stream in problems for problem in of_stream}) == 400
    with pytest.raises(UserError, match=r"has \d+ prompts at any level, and 399 are asked for"):
        list(streams[1].problems(Split.TRAIN, None, 399, 0))


def test_levels_have_their_share_of_a_stream_and_no_twins() -> None:
    weights = DrawWeights({1: 1, 2: 3})
    drawable = weighted(ReasoningGymConfig(GCD, 0.1, 0.1), weights, (0.4, 1.0), KEY)
    problems = list(drawable.problems(Split.TRAIN, [1, 2], 80, 0))
    assert [sum(one.level == level for one in problems) for level in (1, 2)] == [20, 60]
    assert len(set(map(form_id, problems))) == 80


@pytest.mark.parametrize("bounds", [[0.5], [0.5, 0.5], [0.7, 0.2], [-0.1, 1.0], [0.0, 1.1]])
def test_bounds_are_a_part(bounds: Sequence[float]) -> None:
    with pytest.raises(UserError, match=r"stages\.rl\.problems\.stream: .* no bounds of a part"):
        ProblemsConfig(levels=[1], count=4, stream=list(bounds)).check(KEY)


def test_twins_are_counted_and_a_repeated_draw_once() -> None:
    source, ledger = ReasoningGymConfig(SUMS, 0.0, 0.0), Ledger()
    with draws_counted(ledger):
        draws = [list(everything(source)) for _ in range(2)]
    # Digits make 100 sums, of which 45 are another one's twin, and 100 differences.
    assert len(draws[0]) == 155
    assert ledger.as_json()["draws"] == {
        "in": 200,
        "out": 155,
        "dropped": {"twin": 45},
        "selected": ["twin"],
    }


def test_prompts_of_other_streams_are_counted() -> None:
    stream, ledger = Stream(ReasoningGymConfig(GCD, 0.0, 0.0), (0.5, 1.0), KEY), Ledger()
    with draws_counted(ledger):
        assert len(list(stream.problems(Split.TRAIN, [1], 40, 0))) == 40
    counts = ledger.as_json()["prompts"]
    assert counts["out"] == 40
    assert 20 < counts["dropped"]["other_stream"] < 80
    assert not ledger.warnings()


def test_nothing_is_counted_where_nobody_asks() -> None:
    ledger = Ledger()
    with draws_counted(ledger):
        pass
    assert list(ReasoningGymConfig(SUMS, 0.0, 0.0).problems(Split.TRAIN, [1], 5, 0))
    assert not ledger.flows
