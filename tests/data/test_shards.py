"""Sampling in shards: what a kill leaves is read back, what it damaged is sampled again."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from reasoning_lab.data.shards import sample_in_shards
from reasoning_lab.types import Completion, Problem, Rollout, Verdict


def rollout(number: int) -> Rollout:
    problem = Problem(f"p{number}", str(number), "math", "count", metadata={"of": [number, "x"]})
    completion = Completion([number, 7], f"it is {number}", truncated=number % 2 == 0)
    return Rollout(problem, completion, str(number), Verdict.CORRECT, "someone")


class Sampler:
    """Makes rollouts, remembers which, and is lost with its machine at a given problem."""

    def __init__(self, lost_at: int | None = None) -> None:
        self.sampled_numbers: list[int] = []
        self._lost_at = lost_at

    def __call__(self, problems: Sequence[Problem]) -> list[Rollout]:
        numbers = [int(problem.gold) for problem in problems]
        if self._lost_at in numbers:
            raise RuntimeError("the machine is lost")
        self.sampled_numbers += numbers
        return [rollout(number) for number in numbers]


def sampled(folder: Path, sampler: Sampler) -> list[Rollout]:
    problems = (rollout(number).problem for number in range(10))
    shards = sample_in_shards(folder, problems, 4, sampler)
    return [drawn for shard in shards for drawn in shard]


def test_all_rollouts_in_order_and_read_back_as_they_were(tmp_path: Path) -> None:
    first, second = Sampler(), Sampler()
    expected = [rollout(number) for number in range(10)]
    assert sampled(tmp_path, first) == expected
    assert sampled(tmp_path, second) == expected
    assert first.sampled_numbers == list(range(10))
    assert second.sampled_numbers == []


def test_goes_on_with_the_shard_that_was_lost(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        sampled(tmp_path, Sampler(lost_at=5))
    rest = Sampler()
    assert sampled(tmp_path, rest) == [rollout(number) for number in range(10)]
    assert rest.sampled_numbers == list(range(4, 10))


def test_damaged_shard_is_named_and_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sampled(tmp_path, Sampler())
    [damaged] = tmp_path.glob("rollouts-4-8-*")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    again = Sampler()
    assert sampled(tmp_path, again) == [rollout(number) for number in range(10)]
    assert again.sampled_numbers == [4, 5, 6, 7]
    assert f"{damaged} is damaged" in caplog.text


def test_half_written_draft_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "draft.parquet").write_bytes(b"PAR1 half")
    assert sampled(tmp_path, Sampler()) == [rollout(number) for number in range(10)]
