"""A stage that ends at any moment around a saved state, and goes on, leaves the same files."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.graph.stage import Metrics
from reasoning_lab.system.files import rename_with_checksum
from reasoning_lab.tracking.tracker import GLOBAL_STEP, Tracker
from reasoning_lab.training import checkpoints
from reasoning_lab.training.context import StageContext
from tests.support.stages import STAGES, trained

MOMENTS = [("sealed", 1), ("logged", 2), ("sealing", 2), ("logging", 3), ("sealed", 2)]
MOST_ATTEMPTS = 12
# Stage, steps between two states, steps between two lines of metrics: they meet, don't, and at 1.
SETTINGS = [
    ("sft", 1, 1),
    ("sft", 2, 2),
    ("sft", 2, 3),
    ("midtrain", 2, 2),
    ("midtrain", 3, 1),
    ("dpo", 3, 3),
    ("rl", 2, 2),
    ("rl_options", 1, 1),
    ("opd", 2, 2),
    ("rl_ahead", 2, 2),
    ("sft_best", 1, 1),
    ("midtrain_best", 3, 3),
    ("rl_best", 2, 1),
]


class EndedError(Exception):
    """Stands for a kill."""


@dataclass
class Ending:
    """Ends a run at the `count`-th time that it comes by `moment`."""

    moment: str
    count: int

    def at(self, moment: str) -> None:
        self.count -= moment == self.moment
        if self.count == 0 and moment == self.moment:
            raise EndedError


class StepsTracker(Tracker):
    """Remembers the metrics of each step; times and memory differ from run to run."""

    def __init__(self, ending: Ending) -> None:
        self._ending = ending
        self.lines: list[tuple[int, dict[str, float]]] = []

    def log(self, metrics: Mapping[str, Any]) -> None:
        if GLOBAL_STEP not in metrics:
            return
        self._ending.at("logging")
        left_out = ("time/", "device/", GLOBAL_STEP)
        untimed = {key: value for key, value in metrics.items() if not key.startswith(left_out)}
        self.lines.append((metrics[GLOBAL_STEP], untimed))
        self._ending.at("logged")


def attempt(
    name: str, context: StageContext, folder: Path, config: Any, ending: Ending
) -> tuple[Metrics | None, list[tuple[int, dict[str, float]]]]:
    """Metrics of the stage, None = it ended before; and what its tracker was given."""

    def sealing(draft: Path, stem: str) -> Path:
        ending.at("sealing")
        path = rename_with_checksum(draft, stem)
        ending.at("sealed")
        return path

    tracker = StepsTracker(ending)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "rename_with_checksum", sealing)
        try:
            metrics = trained(name, replace(context, tracker=tracker), folder, config)
        except EndedError:
            (folder / "out").rmdir()
            metrics = None
    return metrics, tracker.lines


def files(folder: Path) -> dict[str, bytes]:
    contents = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in contents}


@pytest.mark.parametrize(("name", "every_steps", "log_every_steps"), SETTINGS)
def test_ended_around_states_leaves_the_same_files_and_tells_every_step(
    name: str, every_steps: int, log_every_steps: int, context: StageContext, tmp_path: Path
) -> None:
    config: Any = STAGES[name]
    rhythm = {"checkpoint_every_steps": every_steps, "log_every_steps": log_every_steps}
    config = replace(config, optimization=replace(config.optimization, **rhythm))
    expected, whole = attempt(name, context, tmp_path / "whole", config, Ending("never", 1))
    assert expected is not None
    logged: list[tuple[int, dict[str, float]]] = []
    metrics = None
    for number, moment in enumerate(islice(cycle(MOMENTS), MOST_ATTEMPTS)):
        metrics, lines = attempt(name, context, tmp_path / "part", config, Ending(*moment))
        logged += lines
        if metrics is not None:
            assert number > 0
            break
    assert metrics is not None
    assert {**metrics, "train_s": 0} == {**expected, "train_s": 0}
    assert files(tmp_path / "part" / "out") == files(tmp_path / "whole" / "out")
    # Steps behind a state may be logged twice, but never otherwise.
    assert {repr(line) for line in logged} == {repr(line) for line in whole}
