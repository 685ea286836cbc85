"""Schema of the whole config of one run. No torch here."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from reasoning_lab.config.benchmark import BenchmarkConfig, ProtocolConfig
from reasoning_lab.config.components import EngineConfig, SourceConfig
from reasoning_lab.config.fields import MAX_SEED, number, placement
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.config.optimization import DebugConfig
from reasoning_lab.config.publish import PublishConfig
from reasoning_lab.config.tracker import TrackerConfig
from reasoning_lab.training.stage import LabStage


@dataclass
class PathsConfig:
    """Where output goes.

    Attributes:
        runs: The folder of the store, recipes and sweeps; a relative one is below the current
            directory.
    """

    runs: str = placement("runs")


@dataclass
class RootConfig:
    """The whole config of one run.

    Attributes:
        seed: Draws data, initial weights and completions of every stage; 0 to 2^32 - 1.
        ablate: Stages to leave out: none, a name, or a list of names.
        model: The student.
        data: Where problems come from.
        stages: The recipe: each stage by its name, in order; an option adds one, as in
            `+stage@stages.NAME=sft`.
        benchmarks: What each policy is evaluated on, by name.
        protocol: How policies are evaluated, where it is not the benchmark's own way.
        engine: What answers benchmarks; null = transformers in this process.
        hardware: Where and how wide a recipe runs; changes no result's identity.
        tracker: Where metrics are logged.
        publish: Whether policies are pushed to the hub.
        paths: Where output goes.
        debug: What every training stage does otherwise while a mistake is looked for.
    """

    seed: int = number(0, least=0, most=MAX_SEED)
    ablate: Any = "none"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: SourceConfig = MISSING
    stages: dict[str, LabStage] = field(default_factory=dict)
    benchmarks: dict[str, BenchmarkConfig] = field(default_factory=dict)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    engine: EngineConfig | None = None
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    publish: PublishConfig = field(default_factory=PublishConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    debug: DebugConfig = field(default_factory=DebugConfig)
