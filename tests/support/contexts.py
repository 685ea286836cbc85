"""A stage's context for tests of stages that make data."""

from pathlib import Path
from typing import Any

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.data.sources.problem_source import ProblemSource
from reasoning_lab.tracking.tracker import Tracker
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.stage import LabStage
from reasoning_lab.verify import Verifier


def data_context(
    folder: Path, name: str, source: ProblemSource, verifier: Verifier, **changes: Any
) -> StageContext:
    """A context with an empty `out` and no `work` in `folder`, without inputs."""
    (folder / "out").mkdir()
    options: dict[str, Any] = {
        "name": name,
        "seed": 5,
        "out_dir": folder / "out",
        "work_dir": folder / "work",
        "stage": LabStage(),
        "model": ModelConfig(),
        "source": source,
        "hardware": HardwareConfig(),
        "verifier": verifier,
        "tracker": Tracker(),
    }
    return StageContext(**options | changes)
