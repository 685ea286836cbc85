"""A stage that is to be made: what a process must know of it, and nothing that lives in one.

The same job is done in the command's own process, by torchrun, on SLURM and on Ray.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reasoning_lab.config.benchmark import BenchmarkConfig
from reasoning_lab.config.components import SourceConfig
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.graph.artifact import Artifact
from reasoning_lab.tracking.progress import RunPosition
from reasoning_lab.tracking.tracker import TrackedRun
from reasoning_lab.training.stage import LabStage


def states_folder(work: Path) -> Path:
    """Where the last states of finished trainings are kept, below the folder of all work."""
    return work / "states"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A stage on its inputs.

    Attributes:
        name: The stage's name in the recipe.
        stage: The stage and its knobs.
        seed: Of everything random in it.
        out_dir: Empty folder that becomes the artifact.
        work_dir: Folder that outlives a kill; checkpoints live here.
        inputs: What the stage consumes, by kind.
        model: The student's config.
        data: Options of the problem source.
        hardware: Devices and sizes that change no result.
        benchmarks: What the run's policies are evaluated on.
        tracking: The trackers' run; None = there is none.
        fingerprint: Of the artifact that is made.
        continued_run: Fingerprint of the run whose last state the stage goes on from; None = it
            begins anew.
        position: Where in its run the stage is, for its progress.
    """

    name: str
    stage: LabStage
    seed: int
    out_dir: Path
    work_dir: Path
    inputs: Mapping[str, Artifact] = field(default_factory=dict)
    model: ModelConfig
    data: SourceConfig = field(default_factory=SourceConfig)
    hardware: HardwareConfig
    benchmarks: Mapping[str, BenchmarkConfig] = field(default_factory=dict)
    tracking: TrackedRun | None = None
    fingerprint: str = ""
    continued_run: str | None = None
    position: RunPosition = field(default_factory=RunPosition)

    @property
    def tokens_dir(self) -> Path:
        """Where tokenised corpora are kept, for all stages of a store."""
        return self.work_dir.parent / "tokens"

    @property
    def kept_states(self) -> Path:
        """Where the last states of finished trainings are kept, by their fingerprints."""
        return states_folder(self.work_dir.parent)

    @property
    def machines(self) -> int:
        """Machines that it takes."""
        return self.hardware.nodes if self._is_spread else 1

    @property
    def processes(self) -> int:
        """Processes that it takes on each machine."""
        return self.hardware.devices if self._is_spread else 1

    @property
    def gpus(self) -> int:
        """GPUs that it takes of each machine."""
        if self.hardware.accelerator == "cpu":
            return 0
        engine = self.hardware.sampling
        return max(self.processes, engine.tensor_parallel_size * engine.data_parallel_size)

    @property
    def needs_launch(self) -> bool:
        """Whether it takes processes of its own."""
        return self._is_spread or self.hardware.on_cluster

    @property
    def _is_spread(self) -> bool:
        return self.stage.is_spread(self.hardware)
