"""What a stage is given when it runs: its job, and what lives in one process."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.config.components import EngineConfig
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.corpus import RolloutFile
from reasoning_lab.data.problem_file import ProblemFile
from reasoning_lab.data.sources.mixture import weighted
from reasoning_lab.data.sources.problem_source import ProblemSource, draw_benchmark, number_of
from reasoning_lab.data.sources.streams import stream_of
from reasoning_lab.data.sources.unreadable import ReadableGoldFilter, UnreadablePolicy
from reasoning_lab.data.tokens.documents import TrainedPart
from reasoning_lab.data.tokens.table import TokenTable
from reasoning_lab.data.tokens.tokenized import tokenized
from reasoning_lab.data.trained_prompts import TrainedPrompts
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.recipe import BASE
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.models.adapters import add_adapter
from reasoning_lab.models.chat import add_missing_tokens
from reasoning_lab.models.policy import load_tokenizer
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.models.tokenizer import template_thought
from reasoning_lab.sampling.engine import Engine, OnProgress
from reasoning_lab.sampling.hf import checked_engine
from reasoning_lab.sampling.rollouts import RolloutSampler
from reasoning_lab.tracking.progress import Progress
from reasoning_lab.tracking.tracker import Tracker
from reasoning_lab.training.job import Job
from reasoning_lab.training.probe import check_student
from reasoning_lab.training.stage import TrainingStage
from reasoning_lab.types import Message, Problem, Split
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

    @property
    def training(self) -> TrainingStage:
        """What every training stage has, of this one; the defaults where it is none."""
        return self.stage if isinstance(self.stage, TrainingStage) else TrainingStage()

    def run_stage(self) -> Metrics:
        """Run the stage on its inputs."""
        return self.stage.run(self, **self.inputs)

    def load_policy(self, policy: Policy) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The policy, ready to sample."""
        model = self.model
        return policy.load(model.sampling_dtype, self.hardware.kernels, model.system_prompt)

    def load_student(self, policy: Policy) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The policy, ready to be trained.

        It has the tokens that a hub's checkpoint lacks, and the adapter that is configured.

        Raises:
            UserError: Training would not compute what the model does; see `check_student`.
        """
        student, tokenizer = policy.load(
            self.model.dtype, self.hardware.kernels, self.model.system_prompt
        )
        add_missing_tokens(student, tokenizer)
        if self.model.adapter is not None:
            add_adapter(student, self.model.adapter, self.seed)
        check_student(student, self.hardware, self.name)
        return student, tokenizer

    def documents(
        self,
        rollouts: RolloutFile,
        tokenizer: PreTrainedTokenizerBase,
        trained: TrainedPart = TrainedPart.COMPLETION,
    ) -> TokenTable:
        """Rollouts as tokens, made once for every stage that reads them alike; see `tokenized`."""
        with self.progress.task("rollout", len(rollouts), part="tokenising") as task:
            return tokenized(
                rollouts, tokenizer, self.tokens_dir, trained, on_progress=task.advance
            )

    def problems(self, split: Split, draw: ProblemsConfig) -> ProblemFile:
        """What the source gives for a stage's `problems`, under the run's seed.

        Raises:
            UserError: There are fewer, or golds cannot be read that the source does not drop.
        """
        key = f"stages.{self.name}.problems"
        counted = stream_of(self.source, draw.stream, key)
        count = number_of(counted, split, draw.levels, draw.count, f"{key}.count")
        source = weighted(self.source, draw.weights, draw.stream, key)
        drawn = source.problems(split, draw.levels, count, self.seed)
        return ProblemFile(self.readable_golds().filter(drawn), self.work_dir)

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
        """What the user says in each problem of a benchmark, by its name."""
        return {
            name: [
                problem.user_text
                for problem in draw_benchmark(self.benchmark_source(name), benchmark)
            ]
            for name, benchmark in self.benchmarks.items()
        }

    def benchmark_source(self, name: str) -> ProblemSource:
        """The benchmark's own, or the run's."""
        return self.benchmark_sources.get(name, self.source)

    def write_selection(self, corpus: Corpus, accepted: RolloutFile) -> RolloutFile:
        """Write a corpus of some accepted rollouts of `corpus`; validation rollouts are copied.

        A rejected rollout whose problem has no accepted one left is dropped, since it can form no
        pair.

        Returns:
            The rejected rollouts that stay.
        """
        problems, rejected = np.unique(accepted.index.problems), corpus.rejected()
        stays = np.isin(rejected.index.problems, problems)
        remaining = rejected.select(np.flatnonzero(stays))
        self.ledger.take("rejected_rollouts", len(rejected))
        dropped = len(rejected) - len(remaining)
        self.ledger.drop("rejected_rollouts", "problem_dropped", dropped, selected=True)
        selection = Corpus(self.out_dir)
        accepted.write(selection.accepted_file)
        remaining.write(selection.rejected_file)
        shutil.copyfile(corpus.validation_file, selection.validation_file)
        TrainedPrompts.of(accepted.problems()).write(self.out_dir)
        return remaining

    def sampler(
        self, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, instruction: str = ""
    ) -> RolloutSampler:
        """Draws verified rollouts from `policy`, under the fingerprint that it came with.

        Raises:
            UserError: Its decoding is not the model's forward; see `check_engine`.
        """
        engine = checked_engine(policy, tokenizer, self.hardware, f"stages.{self.name}")
        return self.sampler_through(tokenizer, engine.reporting_to, instruction=instruction)

    def engine_sampler(
        self, policy: Policy, engine: EngineConfig, instruction: str
    ) -> RolloutSampler:
        """Draws verified rollouts from the policy through a configured engine."""
        options = engine.for_policy(str(policy.path), policy.revision, self.model.sampling_dtype)
        tokenizer = None
        if engine.runtime != "server" or policy.path.is_dir():
            tokenizer = load_tokenizer(
                policy.path, policy.revision, "engine.model", self.model.system_prompt
            )
        return self.sampler_through(
            tokenizer, lambda on_progress: options.open(self.hardware), instruction=instruction
        )

    def sampler_through(
        self,
        tokenizer: PreTrainedTokenizerBase | None,
        engine: Callable[[OnProgress], Engine],
        sync: Callable[[Engine, int], None] = lambda engine, version: None,
        instruction: str = "",
    ) -> RolloutSampler:
        """Draws verified rollouts through an engine; see `RolloutSampler`.

        `tokenizer` is the policy's; None = only a server has it.
        """
        policy = self.inputs.get(Policy.kind)
        author = policy.author if isinstance(policy, Policy) else BASE

        def thought_of(earlier: tuple[Message, ...]) -> str:
            return "" if tokenizer is None else template_thought(tokenizer, earlier)

        return RolloutSampler(
            engine, self.verifier, author, self.progress, sync, instruction, thought_of
        )
