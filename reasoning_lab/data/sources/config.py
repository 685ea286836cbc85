"""Options of the problem sources; what draws problems is imported when it is needed."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from reasoning_lab.config.components import SourceConfig, register_component, require_package
from reasoning_lab.config.fields import FREE_KEYS, FREE_KEYS_WHEN_SET, choice, fraction, number
from reasoning_lab.config.targets import check_path
from reasoning_lab.data.sources.canonical import FORMS_VERSION
from reasoning_lab.data.sources.domains import check_domain
from reasoning_lab.data.sources.gym_golds import CORRECTIONS_VERSION, has_corrected_golds
from reasoning_lab.data.sources.problem_source import ProblemSource, check_fractions
from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.data.sources.unreadable import UnreadablePolicy
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.system.files import content_hash
from reasoning_lab.types import DEFAULT_DOMAIN, Problem, Split, UserError
from reasoning_lab.verify.gym.families import require_reviewed_family

if TYPE_CHECKING:
    from reasoning_lab.data.sources.table_source import TableSource

log = logging.getLogger(__name__)


@dataclass
class ReasoningGymConfig(SourceConfig):
    """Problems that reasoning-gym generates; it is the source itself.

    Attributes:
        families: Family name to level to the options of that family's dataset in reasoning-gym.
        test_frac: Fraction of all prompts that is held out for benchmarks.
        validation_frac: Fraction of all prompts that early stopping and tuning may look at.
        domain: The domain of the problems.
        solvers: Family name to the import path of the function that solves its problems for the
            procedural teacher, where it knows no solver or yours is to take its place.
    """

    families: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    test_frac: float = fraction(0.05)
    validation_frac: float = fraction(0.05)
    domain: str = field(default=DEFAULT_DOMAIN, metadata={"when_set": True})
    solvers: dict[str, str] = field(default_factory=dict, metadata=FREE_KEYS_WHEN_SET)

    def build(self) -> ProblemSource:
        """The source.

        Raises:
            UserError: The fractions overlap, the domain is no name, the lab cannot verify a
                family, or a solver is none that a config may name.
        """
        check_fractions(self.test_frac, self.validation_frac)
        check_domain(self.domain, "data.domain")
        for family in self.families:
            require_reviewed_family(family, f"data.families.{family}")
        for family, path in self.solvers.items():
            key = f"data.solvers.{family}"
            if family not in self.families:
                raise UserError(f"{key}: data.families has no '{family}'; correct the name")
            check_path(path, key)
        return self

    def content(self) -> str:
        corrected = any(has_corrected_golds(family) for family in self.families)
        return f"reasoning-gym {version('reasoning-gym')}, forms {FORMS_VERSION}" + (
            f", golds corrected {CORRECTIONS_VERSION}" if corrected else ""
        )

    def is_local(self) -> bool:
        return True

    def provenance(self) -> Mapping[str, str]:
        return {
            "name": f"reasoning-gym: {', '.join(self.families)}",
            "revision": version("reasoning-gym"),
            "licence": "Apache-2.0",
        }

    def fixed_split(self, problem_id: str) -> Split | None:
        return None

    def unreadable(self, problem: Problem) -> UnreadablePolicy | None:
        """Refuse an unreadable gold, because a generator should not produce one."""
        if problem.checker.removeprefix("reasoning_gym/") not in self.families:
            return None
        return UnreadablePolicy("refuse", 0.0, "data")

    def record_rows(self, ledger: Ledger) -> None:
        """Count nothing: problems are generated, not read from rows."""

    def available(self, split: Split, levels: Sequence[int] | None) -> int | None:
        return None

    def problems(
        self, split: Split, levels: Sequence[int] | None, count: int, seed: int
    ) -> Iterator[Problem]:
        from reasoning_lab.data.sources.reasoning_gym import draw_problems

        return draw_problems(self, split, levels, count, seed)


@dataclass(kw_only=True)
class TableConfig(SourceConfig):
    """Options of a source that reads rows.

    Attributes:
        rows: Which column holds what.
        licence: The dataset's licence, for the data card.
        unreadable: What happens to rows and golds that cannot be read: `drop` = they are left out
            and counted, or `refuse`.
        max_unreadable_frac: Largest fraction of them that may be dropped.
        test_frac: Fraction of the prompts that is held out for benchmarks.
        validation_frac: Fraction of the prompts that early stopping and tuning may look at.
    """

    rows: RowMapping = field(default_factory=RowMapping)
    licence: str = "not stated"
    unreadable: str = choice("drop", "refuse")
    max_unreadable_frac: float = fraction(0.5)
    test_frac: float = fraction(0.05)
    validation_frac: float = fraction(0.05)

    def is_local(self) -> bool:
        """Whether rows can be read without a network."""
        raise self.not_chosen()

    def content(self) -> str:
        """What identifies the rows."""
        raise self.not_chosen()

    def provenance(self) -> Mapping[str, str]:
        """The dataset's `name`, `revision` and `licence`, for a data card."""
        raise self.not_chosen()


@dataclass(kw_only=True)
class FileConfig(TableConfig):
    """Problems from a local file: JSON lines, a JSON array, or parquet.

    The user can edit its rows, so unreadable ones are refused unless the options say `drop`. Where
    `rows` does not name a column, one of the usual names is taken; see `named_columns`.

    Attributes:
        path: The file.
    """

    path: str = MISSING
    unreadable: str = choice("refuse", "drop")
    test_frac: float = fraction(0.15)
    validation_frac: float = fraction(0.1)

    def build(self) -> "TableSource":
        """The source.

        Raises:
            UserError: The file is missing, or a row is malformed; the row's line is named.
        """
        from reasoning_lab.data.sources.column_names import named_columns
        from reasoning_lab.data.sources.readers import file_rows
        from reasoning_lab.data.sources.table_source import TableSource

        if Path(self.path).is_dir():
            raise UserError(f"data.path: '{self.path}' is a folder; give a file")
        label = f"data.path: '{self.path}'"
        arguments = {"path": self.path, "content": self.content()}
        named = named_columns(self.rows, partial(file_rows, **arguments))
        if named.taken:
            listed = ", ".join(f"{key}={value}" for key, value in named.taken.items())
            log.info("%s: by the names of its columns, data.rows has %s.", label, listed)
        return TableSource(replace(self, rows=named.rows), label, file_rows, arguments, {})

    def is_local(self) -> bool:
        return True

    def content(self) -> str:
        """The file's hash."""
        return _local_content_hash(Path(self.path))

    def provenance(self) -> Mapping[str, str]:
        return {
            "name": Path(self.path).name,
            "revision": self.content(),
            "licence": self.licence,
        }


@dataclass(kw_only=True)
class HubConfig(TableConfig):
    """Problems from a dataset of the Hugging Face hub, or from a local copy of it.

    Nobody here can edit its rows, so unreadable ones are dropped unless the options say `refuse`.

    Attributes:
        dataset: The dataset's id on the hub.
        config: Its configuration; null where it has only one.
        revision: The commit to read.
        splits: Our split to the dataset's, at least one. The dataset's splits under `test` and
            `validation` are held out unchanged; the fractions split the prompts of `train`.
        streaming: Read several files at a time over the network, and keep the columns that are used
            instead of the dataset's own files.
        first_rows: Read only so many rows from the beginning of each split, without downloading the
            rest; null = all.
        path: A local copy to read instead: a file, split by the fractions alone, or a folder that
            `datasets.load_dataset` can read; null = the hub.
        corrections: Prompt id to the `gold` that the dataset has and the `corrected` one, for golds
            that are known to be wrong or unreadable.
    """

    dataset: str = MISSING
    config: str | None = None
    revision: str = MISSING
    splits: dict[str, str] = MISSING
    streaming: bool = False
    first_rows: int | None = number(None, least=1, when_set=True)
    path: str | None = None
    corrections: dict[str, dict[str, str]] = field(default_factory=dict, metadata=FREE_KEYS)

    def build(self) -> "TableSource":
        """The source; the first request for problems starts the download.

        Raises:
            UserError: `splits` names no split of ours, or a correction is malformed. Drawing
                problems raises it where there is neither network nor copy.
        """
        from reasoning_lab.data.sources.hub import hub_rows
        from reasoning_lab.data.sources.readers import file_rows
        from reasoning_lab.data.sources.table_source import TableSource

        if not self.splits or not self.splits.keys() <= set(Split):
            raise UserError(
                f"data.splits: {dict(self.splits)} must name the dataset's own split for any of "
                "train, validation and test; correct its keys"
            )
        for key, value in self.corrections.items():
            if value.keys() != {"gold", "corrected"}:
                raise UserError(
                    f"data.corrections.{key}: {value!r} is no correction; give two texts: gold, "
                    "copied from the dataset, and corrected"
                )
        label = f"data: '{self.path or self.dataset}'"
        arguments: dict[str, Any] = {"content": self.content()}
        if self.path is not None and Path(self.path).is_file():
            if self.first_rows is not None:
                raise UserError(
                    f"data.first_rows: '{self.path}' is a file, which is read whole; shorten the "
                    "file, or leave first_rows out"
                )
            arguments["path"] = self.path
            return TableSource(self, label, file_rows, arguments, self.corrections)
        # The held-out splits come first: of equal prompts the first row decides the split.
        ordered = {split: self.splits[split] for split in reversed(Split) if split in self.splits}
        arguments |= {"dataset": self.dataset, "config": self.config, "revision": self.revision}
        arguments |= {"splits": ordered, "streaming": self.streaming, "folder": self.path}
        arguments["first_rows"] = self.first_rows
        return TableSource(self, label, hub_rows, arguments, self.corrections)

    def is_local(self) -> bool:
        return self.path is not None

    def content(self) -> str:
        if self.path is None:
            return f"{self.dataset}@{self.revision}"
        return _local_content_hash(Path(self.path))

    def provenance(self) -> Mapping[str, str]:
        revision = self.revision if self.path is None else f"local copy {self.content()}"
        return {"name": self.dataset, "revision": revision, "licence": self.licence}


@dataclass(kw_only=True)
class TasksetConfig(TableConfig):
    """Problems that the tasks of a taskset of the package `verifiers` ask, a row for each task.

    The columns are the fields of a task's data. The system prompt, where there is one, begins the
    conversation in `prompt`.

    Attributes:
        taskset: Import path of a class that is a `verifiers.v1.Taskset`.
        options: Of the taskset's config.
    """

    taskset: str = MISSING
    options: dict[str, Any] = field(default_factory=dict, metadata=FREE_KEYS)
    unreadable: str = choice("refuse", "drop")

    def build(self) -> "TableSource":
        """The source.

        Raises:
            UserError: The package is not installed, or the taskset cannot be read.
        """
        from reasoning_lab.data.sources.table_source import TableSource
        from reasoning_lab.data.sources.tasks import task_rows

        require_package("verifiers", "data.taskset", "verifiers")
        label = f"data.taskset: '{self.taskset}'"
        arguments = {"taskset": self.taskset, "options": self.options, "content": self.content()}
        return TableSource(self, label, task_rows, arguments, {})

    def is_local(self) -> bool:
        """Once the package is installed, as the tasks are read to identify them."""
        return find_spec("verifiers") is not None

    def content(self) -> str:
        """The hash of all tasks."""
        from reasoning_lab.data.sources.tasks import tasks_hash

        return tasks_hash(self.taskset, self.options) if self.is_local() else "not installed"

    def provenance(self) -> Mapping[str, str]:
        return {"name": self.taskset, "revision": self.content(), "licence": self.licence}


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

        return MixtureSource(self)


def _local_content_hash(path: Path) -> str:
    if not path.exists():
        raise UserError(f"data.path: there is no file '{path}'; check the path")
    if not path.is_file() and not path.is_dir():
        raise UserError(f"data.path: '{path}' is a device or a pipe; give a file")
    try:
        return content_hash(path)
    except OSError as error:
        raise UserError(
            f"data.path: cannot read '{path}' ({error}); give a file that you may read"
        ) from error


register_component("data", "reasoning_gym", ReasoningGymConfig)
register_component("data", "files", FileConfig)
register_component("data", "hub", HubConfig)
register_component("data", "taskset", TasksetConfig)
register_component("data", "mixture", MixtureConfig)
