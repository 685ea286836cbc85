"""Groups that are read from several files are those of all rollouts in memory."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from reasoning_lab.data.corpus import RolloutFile, RolloutWriter
from reasoning_lab.data.rollout_groups import RolloutGroups
from reasoning_lab.types import Rollout, Verdict
from tests.support.rollouts import rollout


def write(path: Path, rollouts: Sequence[Rollout], rows: int) -> RolloutFile:
    """As row groups of so many rows."""
    with RolloutWriter(path) as writer:
        for start in range(0, len(rollouts), rows):
            writer.write(rollouts[start : start + rows])
    return RolloutFile(path)


def grouped(rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
    """Rollouts by their problem's id, in order of appearance."""
    by_problem: dict[str, list[Rollout]] = {}
    for one in rollouts:
        by_problem.setdefault(one.problem.id, []).append(one)
    return list(by_problem.values())


def two_files(order: str) -> tuple[list[Rollout], list[Rollout]]:
    """Four rollouts of each of 2,500 problems; some problems are in one file alone."""
    rng = random.Random(0)
    files: tuple[list[Rollout], list[Rollout]] = ([], [])
    for problem in range(2500):
        for sample in range(4):
            files[rng.random() < 0.4].append(
                # These prompts read the same.
                rollout(
                    f"p{problem}" if sample else f" P{problem} ",
                    Verdict.WRONG,
                    1,
                    level=1 + problem % 3,
                    text=f"{problem}/{sample}",
                )
            )
    if order == "scattered":
        for file in files:
            rng.shuffle(file)
    if order == "backwards":
        files[1].reverse()
    return files


@pytest.mark.parametrize(
    ("order", "rows"), [("together", 7), ("together", 10**6), ("scattered", 900), ("backwards", 50)]
)
def test_groups_are_those_of_all_rollouts(order: str, rows: int, tmp_path: Path) -> None:
    first, second = two_files(order)
    files = [write(tmp_path / "1", first, rows), write(tmp_path / "2", second, rows)]
    groups, expected = RolloutGroups(files), grouped([*first, *second])
    assert [list(group.rollouts) for group in groups] == expected
    assert groups.levels.tolist() == [members[0].problem.level for members in expected]
    some = np.flatnonzero(groups.levels == 2)
    assert [list(group.rollouts) for group in groups.select(some)] == [
        members for members in expected if members[0].problem.level == 2
    ]


def test_empty_files_have_no_group(tmp_path: Path) -> None:
    empty, full = write(tmp_path / "0", [], 1), write(tmp_path / "1", two_files("together")[0], 100)
    assert list(RolloutGroups([empty, empty])) == []
    assert len(list(RolloutGroups([empty, full]))) == len(grouped(list(full)))
    assert list(RolloutGroups([full]).select(np.array([], np.int64))) == []
    assert list(RolloutGroups([full.select(np.array([], np.int64)), empty])) == []


def test_rows_are_selected_across_row_groups(tmp_path: Path) -> None:
    rollouts = two_files("together")[0]
    for rows in (7, 500, 10**6):
        file = write(tmp_path / str(rows), rollouts, rows)
        assert list(file) == rollouts
        for places in ([0], [len(rollouts) - 1], [6, 7, 4095, 4096], range(0, len(rollouts), 91)):
            chosen = file.select(np.array(places))
            assert list(chosen) == [rollouts[place] for place in places]
            assert list(chosen.select(np.array([0]))) == [rollouts[places[0]]]
