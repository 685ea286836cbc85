"""Rollouts and prompt ids on the disk."""

from fractions import Fraction
from pathlib import Path

from reasoning_lab.data.corpus import (
    read_prompt_ids,
    read_rollouts,
    write_prompt_ids,
    write_rollouts,
)
from reasoning_lab.types import Completion, Problem, Rollout, Verdict


def test_rollouts_survive_the_disk(tmp_path: Path) -> None:
    problem = Problem("a?", "3/4", "reasoning_gym/x", "x", 2, {"numbers": [1, 2], "deep": {"a": 1}})
    completion = Completion([5, 6], "text é \\boxed{3/4}", truncated=True)
    rollout = Rollout(problem, completion, None, Verdict.TIMEOUT, "author", 7)
    write_rollouts(tmp_path / "rollouts.parquet", [rollout, rollout])
    assert read_rollouts(tmp_path / "rollouts.parquet") == [rollout, rollout]
    write_prompt_ids(tmp_path, [problem.id, problem.id])
    assert read_prompt_ids(tmp_path) == {problem.id}
    assert read_prompt_ids(tmp_path / "elsewhere") == set()


def test_a_fraction_in_the_metadata_is_text_on_the_disk(tmp_path: Path) -> None:
    problem = Problem("a?", "3", "reasoning_gym/x", "x", 1, {"part": Fraction(1, 3)})
    rollout = Rollout(problem, Completion([], "3"), None, Verdict.CORRECT, "author", 0)
    write_rollouts(tmp_path / "rollouts.parquet", [rollout])
    [stored] = read_rollouts(tmp_path / "rollouts.parquet")
    assert stored.problem.metadata == {"part": "1/3"}


def test_no_rollouts_survive_the_disk(tmp_path: Path) -> None:
    write_rollouts(tmp_path / "none.parquet", [])
    assert read_rollouts(tmp_path / "none.parquet") == []
