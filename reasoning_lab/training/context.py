"""What a stage is given when it runs: its job, and what lives in one process."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Self

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.config.components import EngineConfig
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.data.sources.problem_source import ProblemSource, draw_benchmark
from reasoning_lab.data.sources.unreadable import ReadableGoldFilter, UnreadablePolicy
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.recipe import BASE
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.models.adapters import add_adapter
from reasoning_lab.models.chat import add_missing_tokens
from reasoning_lab.models.policy import sampling_device, to_device
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.sampling.engine import Engine, OnProgress
from reasoning_lab.sampling.engine_check import check_engine, hf_remedy
from reasoning_lab.sampling.hf import HFEngine
from reasoning_lab.sampling.rollouts import RolloutSampler
from reasoning_lab.system.ranks import rank
from reasoning_lab.tracking.progress import Progress
from reasoning_lab.tracking.tracker import Tracker
from reasoning_lab.training.job import Job
from reasoning_lab.training.probe import check_student
from reasoning_lab.types import Problem, Split
from reasoning_lab.verify import Verifier


@dataclass(frozen=True, kw_only=True)
class StageContext(Job):
    """A job in the process that does it: what a stage may use besides its own knobs.

    Attributes:
        source: Where problems come from.
        benchmark_sources: Where the problems of those benchmarks come from that have a source of
            their own.
        verifier: Checks answers.
        tracker: Where metrics and tables go.
        ledger: Counts what came in, what was dropped and why.
        progress: Says how far the stage is.
    """

    source: ProblemSource
    benchmark_sources: Mapping[str, ProblemSource] = field(default_factory=dict)
    verifier: Verifier
    tracker: Tracker
    ledger: Ledger = field(default_factory=Ledger)
    progress: Progress = field(default_factory=Progress)

    @classmethod
    def of(
        cls,
        job: Job,
        source: ProblemSource,
        benchmark_sources: Mapping[str, ProblemSource],
        verifier: Verifier,
        tracker: Tracker,
    ) -> Self:
        """The context of `job` in this process."""
        return cls(
            **{item.name: getattr(job, item.name) for item in fields(Job)},
            source=source,
            benchmark_sources=benchmark_sources,
            verifier=verifier,
            tracker=tracker,
            progress=Progress(job.name, job.position if rank() == 0 else None),
        )

    def run_stage(self) -> Metrics:
        """Run the stage on its inputs."""
        return self.stage.run(self, **self.inputs)

    def load_policy(self, policy: Policy) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The policy, ready to sample."""
        return policy.load(self.model.sampling_dtype, self.hardware.kernels)

    def load_student(self, policy: Policy) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The policy, ready to be trained.

        It has the tokens that a hub's checkpoint lacks, and the adapter that is configured.

        Args:
            policy: Where training starts.

        Raises:
            UserError: Training would not compute what the model does; see `check_student`.
        """
        student, tokenizer = policy.load(self.model.dtype, self.hardware.kernels)
        add_missing_tokens(student, tokenizer)
        if self.model.adapter is not None:
            add_adapter(student, self.model.adapter, self.seed)
        check_student(student, self.hardware, self.name)
        return student, tokenizer

    def problems(self, split: Split, draw: ProblemsConfig) -> list[Problem]:
        """What the source gives for a stage's `problems`, under the run's seed.

        Raises:
            UserError: There are fewer, or golds cannot be read that the source does not drop.
        """
        drawn = self.source.problems(split, draw.levels, draw.count, self.seed)
        return list(self.readable_golds().filter(drawn))

    def readable_golds(self) -> ReadableGoldFilter:
        """Passes on what is drawn from the source and has a readable gold.

        The ledger counts what it drops, and once the rows that the source read.
        """
        if "rows" not in self.ledger.flows:
            self.source.record_rows(self.ledger)
        return ReadableGoldFilter(self.verifier, self.ledger, self.unreadable)

    def unreadable(self, problem: Problem) -> UnreadablePolicy:
        """What holds for a problem of the source whose gold cannot be read."""
        return self.source.unreadable(problem) or UnreadablePolicy("refuse", 0.0, "data")

    def benchmark_prompts(self) -> dict[str, list[str]]:
        """Of each benchmark, by its name."""
        return {
            name: [
                problem.prompt for problem in draw_benchmark(self.benchmark_source(name), benchmark)
            ]
            for name, benchmark in self.benchmarks.items()
        }

    def benchmark_source(self, name: str) -> ProblemSource:
        """The benchmark's own, or the run's."""
        return self.benchmark_sources.get(name, self.source)

    def sampler(
        self,
        policy: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        instruction: str = "",
    ) -> RolloutSampler:
        """Draws verified rollouts from `policy`, under the fingerprint that it came with.

        Raises:
            UserError: Its decoding is not the model's forward; see `check_engine`.
        """
        placed = to_device(policy, sampling_device(self.hardware))
        engine = HFEngine(
            placed,
            tokenizer,
            self.hardware.generation_batch_size,
            cache=self.hardware.sampling.cache,
        )
        remedy = hf_remedy(self.hardware)
        check_engine(
            placed, tokenizer, engine.generate, 1.0, self.hardware, f"stages.{self.name}", remedy
        )
        return self.sampler_through(engine.reporting_to, instruction=instruction)

    def engine_sampler(
        self, policy: Policy, engine: EngineConfig, instruction: str
    ) -> RolloutSampler:
        """Draws verified rollouts from the policy through a configured engine."""
        options = engine.for_policy(str(policy.path), policy.revision, self.model.sampling_dtype)

        def open_engine(on_progress: OnProgress) -> Engine:
            opened: Engine = options.open(self.hardware)
            return opened

        return self.sampler_through(open_engine, instruction=instruction)

    def sampler_through(
        self,
        engine: Callable[[OnProgress], Engine],
        sync: Callable[[Engine, int], None] = lambda engine, version: None,
        instruction: str = "",
    ) -> RolloutSampler:
        """Draws verified rollouts through an engine; see `RolloutSampler`."""
        policy = self.inputs.get(Policy.kind)
        author = policy.author if isinstance(policy, Policy) else BASE
        return RolloutSampler(engine, self.verifier, author, self.progress, sync, instruction)
