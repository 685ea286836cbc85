"""Where problems come from: the protocol that all sources keep, and how prompts are split."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from reasoning_lab.config.benchmark import BenchmarkConfig
from reasoning_lab.data.sources.unreadable import Unreadable
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.types import Problem, Split, UserError


class ProblemSource(Protocol):
    """Draws problems by split and level; a prompt belongs to one split only."""

    def problems(
        self, split: Split, levels: Sequence[int], count: int, seed: int
    ) -> Iterator[Problem]:
        """Yield exactly `count` problems with distinct prompts, in an order fixed by `seed`.

        Holds no more in memory than a block of problems and the ids of those before.

        Raises:
            UserError: When there are fewer; perhaps only after those that there are.
        """
        ...

    def fixed_split(self, problem_id: str) -> Split | None:
        """The split that the source itself puts this prompt in; None = its hash decides."""
        ...

    def unreadable(self, problem: Problem) -> Unreadable | None:
        """What holds if the gold of `problem` cannot be read; None = it is not the source's."""
        ...

    def record_rows(self, ledger: Ledger) -> None:
        """Count the `rows` that the source read, and those that give no problem by reason."""
        ...

    def available(self, split: Split, levels: Sequence[int]) -> int | None:
        """How many problems `problems` can yield; None = as many as one likes, or unknown."""
        ...

    def content(self) -> str:
        """What decides the problems beyond the source's options, e.g. a file's hash."""
        ...

    def is_local(self) -> bool:
        """Whether problems can be drawn without a network."""
        ...

    def about(self) -> Mapping[str, str]:
        """For a data card: `name`, `revision` and `licence` of what the problems come from."""
        ...


def drawn(source: ProblemSource, benchmark: BenchmarkConfig) -> Iterator[Problem]:
    """A benchmark's problems, the same for every seed of a run; see `ProblemSource.problems`.

    They are fewer than its count where rows were dropped that would have made the rest.
    """
    split, count = Split(benchmark.split), benchmark.count
    available = source.available(split, benchmark.levels)
    if available is not None and 0 < available < count:
        ledger = Ledger()
        source.record_rows(ledger)
        if count - available <= ledger.flows["rows"].unplanned:
            count = available
    return source.problems(split, benchmark.levels, count, benchmark.seed)


def split_of(problem_id: str, test_frac: float, validation_frac: float) -> Split:
    """The split that a prompt belongs to, from its id (a hash, so uniform)."""
    position = int(problem_id[:8], 16) / 16**8
    if position < test_frac:
        return Split.TEST
    return Split.VALIDATION if position < test_frac + validation_frac else Split.TRAIN


def check_fractions(test_frac: float, validation_frac: float) -> None:
    """Raise UserError unless they are fractions that do not overlap."""
    if min(test_frac, validation_frac) < 0 or test_frac + validation_frac > 1:
        raise UserError(
            f"data: test_frac={test_frac} and validation_frac={validation_frac} must be at "
            "least 0 and sum to 1 at most"
        )
