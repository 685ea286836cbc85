"""Rollouts and prompt ids on the disk."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pyarrow.parquet as pq

from reasoning_lab.data.corpus import (
    RolloutFile,
    read_rollouts,
    write_rollouts,
)
from reasoning_lab.types import Completion, Problem, Rollout, Verdict


def test_rollouts_survive_the_disk(tmp_path: Path) -> None:
    problem = Problem("a?", "3/4", "reasoning_gym/x", "x", 2, {"numbers": [1, 2], "deep": {"a": 1}})
    problem = replace(problem, domain="logic")
    completion = Completion([5, 6], "text é \\boxed{3/4}", truncated=True)
    rollout = Rollout(problem, completion, None, Verdict.TIMEOUT, "author", 7)
    write_rollouts(tmp_path / "rollouts.parquet", [rollout, rollout])
    assert read_rollouts(tmp_path / "rollouts.parquet") == [rollout, rollout]


def test_the_fraction_of_passed_tests_survives_the_disk(tmp_path: Path) -> None:
    problem = Problem("a?", "x = 1", "python", "x", metadata={"tests": ["assert x == 1"]})
    rollout = Rollout(problem, Completion([], ""), None, Verdict.WRONG, "author", passed_frac=0.5)
    path, earlier = tmp_path / "rollouts.parquet", tmp_path / "earlier.parquet"
    write_rollouts(path, [rollout])
    assert read_rollouts(path) == [rollout]
    pq.write_table(pq.read_table(path).drop_columns(["passed_frac"]), earlier)
    assert read_rollouts(earlier) == [replace(rollout, passed_frac=None)]


def test_a_file_that_has_no_domains_is_of_mathematics(tmp_path: Path) -> None:
    problem = Problem("a?", "3", "choice", "x", domain="logic")
    rollout = Rollout(problem, Completion([], "3"), "3", Verdict.CORRECT, "author")
    path, earlier = tmp_path / "rollouts.parquet", tmp_path / "earlier.parquet"
    write_rollouts(path, [rollout])
    pq.write_table(pq.read_table(path).drop_columns(["domain"]), earlier)
    assert [one.domain for one in RolloutFile(path).problems()] == ["logic"]
    assert [one.domain for one in RolloutFile(earlier).problems()] == ["mathematics"]
    RolloutFile(earlier).write(tmp_path / "copy.parquet")
    assert read_rollouts(tmp_path / "copy.parquet")[0].problem.domain == "mathematics"


def test_a_fraction_in_the_metadata_is_text_on_the_disk(tmp_path: Path) -> None:
    problem = Problem("a?", "3", "reasoning_gym/x", "x", 1, {"part": Fraction(1, 3)})
    rollout = Rollout(problem, Completion([], "3"), None, Verdict.CORRECT, "author", 0)
    write_rollouts(tmp_path / "rollouts.parquet", [rollout])
    [stored] = read_rollouts(tmp_path / "rollouts.parquet")
    assert stored.problem.metadata == {"part": "1/3"}


def test_no_rollouts_survive_the_disk(tmp_path: Path) -> None:
    write_rollouts(tmp_path / "none.parquet", [])
    assert read_rollouts(tmp_path / "none.parquet") == []
