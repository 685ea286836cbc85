"""The `evaluate` stage: one policy on one benchmark, a node of the graph like any other."""

from dataclasses import dataclass, field
from typing import Any

from reasoning_lab.config.benchmark import SHARD_ROLLOUTS, BenchmarkConfig
from reasoning_lab.config.components import EngineConfig
from reasoning_lab.config.problems import ProblemDraw
from reasoning_lab.evaluate.completions import Evaluation
from reasoning_lab.graph.stage import Workload
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.training.stage import LabStage
from reasoning_lab.types import Sequences, Split


@dataclass
class EvaluateStage(LabStage):
    """One policy on one benchmark.

    Attributes:
        benchmark_name: The benchmark's name.
        benchmark: Its problems and protocol.
        engine: What answers; null = transformers in this process.
        data_identity: Identity of the source that its problems come from.
    """

    name = "evaluate"
    implementation = "reasoning_lab.evaluate.benchmark.run"
    consumes = (Policy,)
    produces = Evaluation
    reads = ("model",)
    version = 3

    benchmark_name: str = ""
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)
    engine: EngineConfig | None = None
    data_identity: Any = None

    def identity(self) -> dict[str, Any]:
        """The problems count by content, the model by the policy that it is."""
        identity = super().identity()
        identity["benchmark"]["data"] = identity.pop("data_identity")
        if self.engine is not None:
            identity["engine"] = {k: v for k, v in identity["engine"].items() if k != "model"}
        return identity

    def problem_draws(self, key: str) -> list[ProblemDraw]:
        benchmark = self.benchmark
        return [
            ProblemDraw(
                f"benchmarks.{self.benchmark_name}",
                Split(benchmark.split),
                benchmark.levels,
                benchmark.known_count,
                benchmark=self.benchmark_name,
                seed=benchmark.seed,
            )
        ]

    def workload(self) -> Workload:
        runtime = "hf" if self.engine is None else self.engine.runtime
        count = self.benchmark.known_count
        if count is None:
            return Workload(engine=runtime)
        rows = count * self.benchmark.samples
        in_memory = min(rows, max(SHARD_ROLLOUTS, self.benchmark.samples))
        tokens = self.benchmark.sampling.completion_tokens
        written = Sequences(rows, tokens, rows_in_memory=in_memory)
        return Workload(rows=rows, written=written, engine=runtime)
