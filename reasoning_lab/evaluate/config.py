"""Schema of an evaluation: a node of the graph like any stage."""

from dataclasses import dataclass, field
from typing import Any

from reasoning_lab.config.benchmark import BenchmarkConfig
from reasoning_lab.config.components import EngineConfig
from reasoning_lab.config.problems import ProblemDraw
from reasoning_lab.config.schema import StageConfig
from reasoning_lab.types import Sequences, Split


@dataclass
class EvaluateConfig(StageConfig):
    """One policy on one benchmark.

    Attributes:
        name: The benchmark's.
        benchmark: Its problems and protocol.
        engine: What answers; null = transformers in this process.
        own_data: Identity of the benchmark's own source; null = it has none.
    """

    run: str = "reasoning_lab.evaluate.benchmark.run"
    consumes: list[str] = field(default_factory=lambda: ["policy"])
    produces: str = "evaluation"
    reads: list[str] = field(default_factory=lambda: ["model", "data"])
    name: str = ""
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)
    engine: EngineConfig | None = None
    own_data: Any = None
    version: int = 2

    def identity(self) -> dict[str, Any]:
        """The problems count by content, the model by the policy that it is."""
        identity = super().identity()
        identity["benchmark"]["data"] = identity.pop("own_data")
        if self.engine is not None:
            identity["engine"] = {k: v for k, v in identity["engine"].items() if k != "model"}
        return identity

    def problem_draws(self, key: str) -> list[ProblemDraw]:
        benchmark = self.benchmark
        return [
            ProblemDraw(
                f"benchmarks.{self.name}",
                Split(benchmark.split),
                benchmark.levels,
                benchmark.count,
                benchmark=self.name,
                seed=benchmark.seed,
            )
        ]

    def rows(self) -> int | None:
        return self.benchmark.count * self.benchmark.samples

    def written_rows(self) -> Sequences | None:
        held = self.benchmark
        return Sequences(held.count * held.samples, held.sampling.max_new_tokens)
