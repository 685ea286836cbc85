"""The protocol of a problem source, and how problems are split."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from reasoning_lab.config.benchmark import BenchmarkConfig
from reasoning_lab.config.problems import in_words
from reasoning_lab.data.sources.unreadable import UnreadablePolicy
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.types import Problem, Split, UserError


class ProblemSource(Protocol):
    """Draws problems by split and level; a prompt belongs to one split only."""

    def problems(
        self, split: Split, levels: Sequence[int] | None, count: int, seed: int
    ) -> Iterator[Problem]:
        """Yield exactly `count` problems with distinct prompts, in an order fixed by `seed`.

        Levels of None are all levels.
        Keeps in memory one block of problems and the ids of all earlier ones.

        Raises:
            UserError: There are fewer; some may be yielded before the error.
        """
        ...

    def fixed_split(self, problem_id: str) -> Split | None:
        """The split that the dataset itself assigns to a prompt; None = its hash decides."""
        ...

    def unreadable(self, problem: Problem) -> UnreadablePolicy | None:
        """What happens if the gold of `problem` cannot be read; None = it is another source's."""
        ...

    def record_rows(self, ledger: Ledger) -> None:
        """Count the `rows` that the source read, and those without a problem by reason."""
        ...

    def available(self, split: Split, levels: Sequence[int] | None) -> int | None:
        """How many problems `problems` can yield; None = unlimited or unknown."""
        ...

    def content(self) -> str:
        """Identity of the data beyond the source's options, e.g. a file's hash."""
        ...

    def is_local(self) -> bool:
        """Whether problems can be drawn without a network."""
        ...

    def provenance(self) -> Mapping[str, str]:
        """The dataset's `name`, `revision` and `licence`, for a data card."""
        ...


def draw_benchmark(source: ProblemSource, benchmark: BenchmarkConfig) -> Iterator[Problem]:
    """Draw a benchmark's problems, the same for every seed of a run.

    There may be fewer than the benchmark's count, if dropped rows account for the difference.

    Raises:
        UserError: There are fewer for another reason, as `ProblemSource.problems` raises it.
    """
    split = Split(benchmark.split)
    count = number_of(source, split, benchmark.levels, benchmark.count, "benchmark count")
    available = source.available(split, benchmark.levels)
    if available is not None and 0 < available < count:
        ledger = Ledger()
        source.record_rows(ledger)
        if count - available <= ledger.flows["rows"].unplanned:
            count = available
    return source.problems(split, benchmark.levels, count, benchmark.seed)


class CountedSource(Protocol):
    """What may know how many problems it has: a source, or a stream of one."""

    def available(self, split: Split, levels: Sequence[int] | None) -> int | None:
        """As `ProblemSource.available`."""
        ...

    def provenance(self) -> Mapping[str, str]:
        """As `ProblemSource.provenance`."""
        ...


def number_of(
    source: CountedSource,
    split: Split,
    levels: Sequence[int] | None,
    count: int | str,
    key: str,
) -> int:
    """The number of problems that `count` stands for: itself, or how many there are for `all`.

    Raises:
        UserError: There is none, or nothing says how many there are; it names `key`.
    """
    if isinstance(count, int):
        return count
    counts = {part: source.available(part, levels) for part in Split}
    available = counts[split]
    if available is None:
        raise UserError(
            f"{key}={count}: this source does not say how many problems it has, as a generator or "
            "a mixture does not; give a number"
        )
    if not available:
        name = source.provenance()["name"]
        counted = ", ".join(f"{part} {number}" for part, number in counts.items())
        enlarged = "lower data.test_frac" if split is Split.TRAIN else f"raise data.{split}_frac"
        raise UserError(
            f"{key}={count}: '{name}' has no {split} prompt at {in_words(levels)} ({counted}); "
            f"add rows or {enlarged}"
        )
    return available


def split_of(form_id: str, test_frac: float, validation_frac: float) -> Split:
    """The split that problems of one canonical form belong to; its id is a uniform hash."""
    position = int(form_id[:8], 16) / 16**8
    if position < test_frac:
        return Split.TEST
    return Split.VALIDATION if position < test_frac + validation_frac else Split.TRAIN


def check_fractions(test_frac: float, validation_frac: float) -> None:
    """Raise UserError unless both are fractions and sum to at most 1."""
    if min(test_frac, validation_frac) < 0 or test_frac + validation_frac > 1:
        raise UserError(
            f"data: test_frac={test_frac} and validation_frac={validation_frac} must be at "
            "least 0 and sum to 1 at most"
        )
