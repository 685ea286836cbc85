"""Structured configs: every key that our code reads, with its type and whether it is identity.

Importing this module, or a stage's config module, imports no torch.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from reasoning_lab.config.fields import at_least, choice, fraction, identity_of, number, placement
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.optimization import OptimizationConfig
from reasoning_lab.config.targets import check_path
from reasoning_lab.types import Sequences, Split, UserError

# The largest seed that numpy and Lightning take.
MAX_SEED = 2**32 - 1


@dataclass
class SamplingConfig:
    """How completions are drawn; see `reasoning_lab.sampling.engine.Sampling`."""

    temperature: float = number(MISSING, least=0.0)
    top_p: float = number(1.0, least=0.001, most=1.0)
    max_new_tokens: int = at_least(1)


@dataclass
class AdapterConfig:
    """Low-rank adapters, trained in place of the weights and merged into what a stage writes.

    `pretrain`, whose weights are new, trains all of them.

    Attributes:
        kind: lora, or qlora = the frozen layers are kept in 4 bits.
        rank: Of an adapter's matrices.
        alpha: An adapter's product is multiplied by alpha / rank.
        dropout: Of what goes into an adapter.
        target_modules: Ends of the names of the layers that get one; null = every linear layer
            of the blocks.
    """

    kind: str = choice("lora", "qlora")
    rank: int = number(16, least=1)
    alpha: float = number(32.0, least=0.0)
    dropout: float = fraction(0.0)
    target_modules: list[str] | None = None


@dataclass
class ModelConfig:
    """The student: a checkpoint to start from, or an architecture to train from scratch.

    Attributes:
        path: A Hugging Face folder or hub id; null = a stage builds `architecture` anew.
        revision: The hub commit of `path`.
        architecture: Arguments of the transformers config; `model_type` names the family. With a
            `path` only `plan` reads them, to reckon memory without the checkpoint.
        vocab_size: Size of the tokenizer that is trained with a model from scratch.
        dtype: Precision of weights and arithmetic; mixed = training takes products in bfloat16 from
            weights that stay float32, so that steps too small for bfloat16 add up, and what
            samples is their bfloat16 copy.
        adapter: What trains in place of the weights; null = the weights do.
    """

    path: str | None = None
    revision: str | None = None
    architecture: dict[str, Any] = field(default_factory=dict)
    vocab_size: int = 512
    dtype: str = choice("float32", "bfloat16", "mixed")
    adapter: AdapterConfig | None = field(default=None, metadata={"when_set": True})

    @property
    def sampling_dtype(self) -> str:
        """Of weights and arithmetic alike, as engines have it."""
        return "bfloat16" if self.dtype == "mixed" else self.dtype


@dataclass
class ProblemsConfig:
    """Which problems a stage draws from the training split of the data source."""

    levels: list[int] = MISSING
    count: int = at_least(1)


@dataclass(frozen=True, slots=True)
class ProblemDraw:
    """Problems that a node draws, which are looked for before anything trains.

    Attributes:
        key: The config key that asks for them.
        split: Of the source.
        levels: Difficulty levels.
        count: How many.
        teacher: `_target_` and options of the teacher that must know them; None = nobody works
            them.
        benchmark: The benchmark whose source they come from; None = the run's source.
        seed: Of the draw; None = the run's.
    """

    key: str
    split: Split
    levels: Sequence[int]
    count: int
    teacher: Mapping[str, Any] | None = None
    benchmark: str | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class CorpusSelection:
    """What a stage takes of a corpus.

    Attributes:
        key: The config key that asks for it.
        levels: Difficulty levels.
        least: Problems at these levels without which the stage cannot run.
    """

    key: str
    levels: Sequence[int]
    least: int = 1


@dataclass(frozen=True, slots=True)
class DocumentLimit:
    """The longest document that a stage takes: the key that says so, and its tokens."""

    key: str
    tokens: int


@dataclass
class BenchmarkConfig:
    """A fixed set of held-out problems and the protocol by which a policy meets it.

    Attributes:
        data: `_target_` and options of a source of its own; null = the run's.
        instruction: Said after every problem, on a line of its own.
        split: test, or validation for tuning; no training problem is in either.
        seed: Draws the problems; independent of the run's seed, so all runs meet the same.
        samples: Completions a problem.
        unreadable: drop = problems whose gold cannot be read are left out and counted; or refuse.
        max_unreadable_frac: Largest fraction of the problems that is dropped so.
    """

    data: dict[str, Any] | None = None
    instruction: str = ""
    split: str = choice("test", "validation")
    levels: list[int] = MISSING
    count: int = at_least(1)
    seed: int = number(0, least=0, most=MAX_SEED)
    samples: int = at_least(1)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    unreadable: str = choice("drop", "refuse")
    max_unreadable_frac: float = fraction(0.5)


@dataclass
class ProtocolConfig:
    """What takes the place of every benchmark's own protocol; null = the benchmark's.

    Attributes:
        count: Problems at most; a benchmark with fewer has all of its own.
        samples: Completions a problem.
        temperature: Of their sampling; 0 = greedy.
        top_p: Likewise.
        max_new_tokens: Likewise.
    """

    count: int | None = number(None, least=1)
    samples: int | None = number(None, least=1)
    temperature: float | None = number(None, least=0.0)
    top_p: float | None = number(None, least=0.001, most=1.0)
    max_new_tokens: int | None = number(None, least=1)

    def applied(self, benchmark: BenchmarkConfig) -> BenchmarkConfig:
        """`benchmark` under this protocol."""
        given = {key: value for key, value in vars(self).items() if value is not None}
        samples = given.pop("samples", benchmark.samples)
        count = min(given.pop("count", benchmark.count), benchmark.count)
        sampling = dataclasses.replace(benchmark.sampling, **given)
        return dataclasses.replace(benchmark, count=count, samples=samples, sampling=sampling)


@dataclass
class StageConfig:
    """What every stage's config has; a stage's own schema adds its knobs.

    Attributes:
        run: Import path of the function that runs the stage.
        consumes: Kinds of artifact it needs from earlier stages.
        produces: The kind that it makes: policy, corpus or preferences.
        reads: Root config groups that it depends on, of `model`, `data` and `benchmarks`.
        init_from: Where its policy comes from: `previous`, `base` (model.path) or a stage.
        version: Raised when the algorithm changes, so that old artifacts are not reused.
        after: The stage that it follows in the recipe; null = it stays at its own place, which
            for one that `+stage@stages.NAME=…` adds is the end.
    """

    run: str = MISSING
    consumes: list[str] = field(default_factory=list)
    produces: str = MISSING
    reads: list[str] = field(default_factory=list)
    init_from: str = "previous"
    version: int = 1
    after: str | None = placement(None)

    def identity(self) -> dict[str, Any]:
        """What of the config decides the result, as plain data."""
        identity: dict[str, Any] = identity_of(self)
        return identity

    def rows(self) -> int | None:
        """Rows that it trains on or samples, by which its time is estimated; None = unknown."""
        return None

    def training_rows(self) -> Sequences | None:
        """What it trains on at most; None = nothing, or its data decides how long."""
        return None

    def written_rows(self) -> Sequences | None:
        """What the policy writes in it at most; None = nothing."""
        return None

    def problem_draws(self, key: str) -> Sequence[ProblemDraw]:
        """The problems that it draws; `key` is the stage's."""
        return []

    def corpus_selections(self, key: str) -> Sequence[CorpusSelection]:
        """What it takes of the corpus that reaches it."""
        return []

    def document_limit(self, key: str) -> DocumentLimit | None:
        """The longest document that it takes; None = any."""
        return None

    def frozen_copies(self) -> int:
        """Frozen policies that it keeps in memory beside the one that trains."""
        return 0

    def check(self, key: str, hardware: HardwareConfig) -> None:
        """Refuse what `hardware` cannot run, before anything runs; `key` is the stage's."""


@dataclass
class TrainingConfig(StageConfig):
    """What every stage that steps an optimizer has."""

    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)

    def rows(self) -> int | None:
        return self.optimization.steps * self.optimization.batch_size

    def check(self, key: str, hardware: HardwareConfig) -> None:
        self.check_optimizer(key, hardware)
        size, micro = self.optimization.batch_size, hardware.micro_batch_size
        world = hardware.world_size
        among = f"hardware.devices={hardware.devices}"
        if hardware.nodes > 1:
            among += f" × hardware.nodes={hardware.nodes}"
        if size % world:
            raise UserError(
                f"{among} does not divide {key}.optimization.batch_size={size}; choose a divisor"
            )
        if micro is not None and micro < size // world and size // world % micro:
            of = f" / {among}" if world > 1 else ""
            raise UserError(
                f"hardware.micro_batch_size={micro} does not divide "
                f"{key}.optimization.batch_size={size}{of}; choose a divisor"
            )

    def check_optimizer(self, key: str, hardware: HardwareConfig) -> None:
        """Refuse an optimizer with a rate of its own, or one that shards would change."""
        optimizer, schedule = self.optimization.optimizer, self.optimization.schedule
        check_path(optimizer.target, f"{key}.optimization.optimizer._target_")
        check_path(schedule.target, f"{key}.optimization.schedule._target_")
        if "lr" in optimizer.options:
            raise UserError(
                f"{key}.optimization.optimizer.options.lr: the rate is "
                f"{key}.optimization.learning_rate, which would override it; set that key and "
                "take this one out"
            )
        if hardware.strategy not in ("single", "ddp") and not optimizer.is_elementwise:
            raise UserError(
                f"{key}.optimization.optimizer: hardware.strategy={hardware.strategy} updates "
                f"shards, which '{optimizer.target}' cannot; choose adamw, as in "
                f"optimizer@{key}.optimization.optimizer=adamw, or strategy=ddp"
            )


@dataclass
class TrackerConfig:
    """Weights & Biases; offline by itself when there is no key or no server.

    Attributes:
        mode: auto, online, offline or disabled.
        project: W&B project.
        entity: W&B user or team; null = the key's own.
        tags: Put on every run.
        connect_timeout_s: How long `auto` waits for the server before it goes offline.
    """

    mode: str = field(
        default="auto",
        metadata={"placement": True, "choices": ("auto", "online", "offline", "disabled")},
    )
    project: str = placement("reasoning-lab")
    entity: str | None = placement(None)
    tags: list[str] = field(default_factory=list, metadata={"placement": True})
    connect_timeout_s: float = number(3.0, least=0.0, placement=True)


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
        engine: `_target_` and options of what answers benchmarks; null = transformers in this
            process.
        data: `_target_` and options of the problem source.
    """

    seed: int = number(0, least=0, most=MAX_SEED)
    ablate: Any = "none"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, Any] = field(default_factory=dict)
    benchmarks: dict[str, BenchmarkConfig] = field(default_factory=dict)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    engine: dict[str, Any] | None = None
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)


def register_stage(name: str, schema: type[StageConfig]) -> None:
    """Make `schema` the type of the stage options whose defaults name it."""
    ConfigStore.instance().store(group="schema", name=name, node=schema)


ConfigStore.instance().store(group="schema", name="root", node=RootConfig)
ConfigStore.instance().store(group="schema", name="benchmark", node=BenchmarkConfig)
