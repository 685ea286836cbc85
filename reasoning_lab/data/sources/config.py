"""Options of the problem sources; a source is imported when it is built."""

from dataclasses import asdict, dataclass, field
from typing import Any

from omegaconf import MISSING

from reasoning_lab.config.components import SourceConfig, register_component
from reasoning_lab.config.fields import FREE_KEYS, choice, fraction
from reasoning_lab.data.sources.problem_source import ProblemSource
from reasoning_lab.data.sources.row_mapping import RowMapping


@dataclass
class ReasoningGymConfig(SourceConfig):
    """Problems that reasoning-gym generates.

    Attributes:
        families: Family name to level to the options of that family's dataset in reasoning-gym.
        test_frac: Fraction of all prompts that is held out for benchmarks.
        validation_frac: Fraction of all prompts that early stopping and tuning may look at.
    """

    families: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    test_frac: float = fraction(0.05)
    validation_frac: float = fraction(0.05)

    def build(self) -> ProblemSource:
        from reasoning_lab.data.sources.reasoning_gym import ReasoningGymSource

        return ReasoningGymSource(**self.arguments())


@dataclass
class FileConfig(SourceConfig):
    """Problems from a local file: JSON lines, a JSON array, or parquet.

    Attributes:
        path: The file.
        rows: Which column holds what.
        licence: The file's licence, for the data card.
        unreadable: What happens to rows and golds that cannot be read: `refuse`, or `drop` = they
            are left out and counted.
        max_unreadable_frac: Largest fraction of them that may be dropped.
        test_frac: Fraction of all prompts that is held out for benchmarks.
        validation_frac: Fraction of all prompts that early stopping and tuning may look at.
    """

    path: str = MISSING
    rows: RowMapping = field(default_factory=RowMapping)
    licence: str = "not stated"
    unreadable: str = choice("refuse", "drop")
    max_unreadable_frac: float = fraction(0.5)
    test_frac: float = fraction(0.15)
    validation_frac: float = fraction(0.1)

    def build(self) -> ProblemSource:
        from reasoning_lab.data.sources.file import FileSource

        return FileSource(**{**self.arguments(), "rows": asdict(self.rows)})


@dataclass
class HubConfig(SourceConfig):
    """Problems from a dataset of the Hugging Face hub, or from a local copy of it.

    Attributes:
        dataset: The dataset's id on the hub.
        config: Its configuration; null where it has only one.
        revision: The commit to read.
        licence: The licence on the dataset's card.
        splits: Our split to the dataset's, at least one. The dataset's splits under `test` and
            `validation` are held out unchanged; the fractions split the prompts of `train`.
        rows: Which column holds what.
        streaming: Read the rows over the network without keeping the dataset's own files.
        path: A local copy to read instead: a file, split by the fractions alone, or a folder that
            `datasets.load_dataset` can read; null = the hub.
        unreadable: What happens to rows and golds that cannot be read: `drop` = they are left out
            and counted, as nobody here can edit them; or `refuse`.
        max_unreadable_frac: Largest fraction of them that may be dropped.
        corrections: Prompt id to the `gold` that the dataset has and the `corrected` one, for golds
            that are known to be wrong or unreadable.
        test_frac: Fraction of the prompts of `train` that is held out for benchmarks.
        validation_frac: Fraction of them that early stopping and tuning may look at.
    """

    dataset: str = MISSING
    config: str | None = None
    revision: str = MISSING
    licence: str = "not stated"
    splits: dict[str, str] = MISSING
    rows: RowMapping = field(default_factory=RowMapping)
    streaming: bool = False
    path: str | None = None
    unreadable: str = choice("drop", "refuse")
    max_unreadable_frac: float = fraction(0.5)
    corrections: dict[str, dict[str, str]] = field(default_factory=dict, metadata=FREE_KEYS)
    test_frac: float = fraction(0.05)
    validation_frac: float = fraction(0.05)

    def build(self) -> ProblemSource:
        from reasoning_lab.data.sources.hub import HubSource

        return HubSource(**{**self.arguments(), "rows": asdict(self.rows)})


@dataclass
class MixtureConfig(SourceConfig):
    """Problems of several sources by weight; every source needs the levels asked for.

    Attributes:
        sources: Name to a source, whose fractions are those of the mixture.
        weights: Name to the source's share of the problems, in any unit; every source has one,
            from 0, and one of them is above 0.
        test_frac: Fraction of all prompts that is held out for benchmarks.
        validation_frac: Fraction of all prompts that early stopping and tuning may look at.
    """

    sources: dict[str, SourceConfig] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict, metadata=FREE_KEYS)
    test_frac: float = fraction(0.05)
    validation_frac: float = fraction(0.05)

    def check(self, key: str) -> None:
        for name, source in self.sources.items():
            source.check(f"{key}.sources.{name}")

    def build(self) -> ProblemSource:
        from reasoning_lab.data.sources.mixture import MixtureSource

        return MixtureSource(**self.arguments())


register_component("data", "reasoning_gym", ReasoningGymConfig)
register_component("data", "files", FileConfig)
register_component("data", "hub", HubConfig)
register_component("data", "mixture", MixtureConfig)
