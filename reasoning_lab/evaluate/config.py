"""Schema of an evaluation: a node of the graph like any stage."""

from dataclasses import dataclass, field

from reasoning_lab.schema import BenchmarkConfig, StageConfig


@dataclass
class EvaluateConfig(StageConfig):
    """One policy on one benchmark.

    Attributes:
        name: The benchmark's.
        benchmark: Its problems and protocol.
    """

    run: str = "reasoning_lab.evaluate.benchmark.run"
    consumes: list[str] = field(default_factory=lambda: ["policy"])
    produces: str = "evaluation"
    reads: list[str] = field(default_factory=lambda: ["model", "data"])
    name: str = ""
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)

    def rows(self) -> int | None:
        return self.benchmark.count * self.benchmark.samples
