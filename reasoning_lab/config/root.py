"""Schema of the whole config of one run. No torch here."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from reasoning_lab.config.benchmark import BenchmarkConfig, ProtocolConfig
from reasoning_lab.config.components import EngineConfig, SourceConfig
from reasoning_lab.config.debug import DebugConfig
from reasoning_lab.config.fields import MAX_SEED, number, placement
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.config.tracker import TrackerConfig


@dataclass
class PathsConfig:
    """Where output goes, relative to the current directory."""

    runs: str = placement("runs")


@dataclass
class RootConfig:
    """The whole config of one run.

    Attributes:
        seed: Draws data, initial weights and completions of every stage.
        ablate: Stages to leave out: none, a name, or a list of names.
        stages: The recipe, in order.
        benchmarks: What each policy is evaluated on.
        protocol: How, where it is not the benchmark's own way.
        engine: What answers benchmarks; null = transformers in this process.
        data: Where problems come from.
        debug: What every training stage does otherwise while a mistake is looked for.
    """

    seed: int = number(0, least=0, most=MAX_SEED)
    ablate: Any = "none"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: SourceConfig = MISSING
    stages: dict[str, Any] = field(default_factory=dict)
    benchmarks: dict[str, BenchmarkConfig] = field(default_factory=dict)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    engine: EngineConfig | None = None
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    debug: DebugConfig = field(default_factory=DebugConfig)


ConfigStore.instance().store(group="schema", name="root", node=RootConfig)
ConfigStore.instance().store(group="schema", name="benchmark", node=BenchmarkConfig)
