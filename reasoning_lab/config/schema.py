"""Structured configs: every key that our code reads, with its type and whether it is identity.

Importing this module imports no torch. The schema of a stage is the stage itself.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from reasoning_lab.config.fields import at_least, choice, fraction, number, placement
from reasoning_lab.config.hardware import HardwareConfig

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


ConfigStore.instance().store(group="schema", name="root", node=RootConfig)
ConfigStore.instance().store(group="schema", name="benchmark", node=BenchmarkConfig)
