"""What happens to golds and rows that cannot be read: refused, or dropped, counted and bounded.

Between a source, which knows what holds for its problems, and whatever draws from it with a
verifier. A dataset that the user cannot edit drops them; a file of the user's own is refused.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.types import Problem, UserError
from reasoning_lab.verify import Verifier

log = logging.getLogger(__name__)

UNREADABLE_GOLD = "unreadable_gold"
_SHARD_PROBLEMS = 4096
_SHOWN_ROWS = 9
_KEYS = (
    "test_frac|validation_frac|path|rows|splits|dataset|sources|weights|corrections|unreadable|"
    "max_unreadable_frac"
)
_SOURCE_KEY = re.compile(rf"\bdata(?=\.(?:{_KEYS})\b|: ')")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What holds for problems or rows that cannot be read.

    Attributes:
        action: `refuse`, or `drop` = they are left out and counted.
        max_frac: Largest fraction that may be dropped.
        key: The config key under which `unreadable` and `max_unreadable_frac` stand.

    Raises:
        UserError: The action is unknown, or the fraction is none.
    """

    action: str
    max_frac: float
    key: str

    def __post_init__(self) -> None:
        if self.action not in ("refuse", "drop"):
            raise UserError(
                f"{self.key}.unreadable: '{self.action}' is unknown; choose refuse or drop"
            )
        if not 0 <= self.max_frac <= 1:
            raise UserError(
                f"{self.key}.max_unreadable_frac: {self.max_frac} is no fraction; give 0 to 1"
            )

    def check(self, dropped: int, total: int, what: str, examples: Sequence[str]) -> None:
        """Refuse to go on where more than `max_frac` of `total` was dropped.

        Args:
            dropped: How many cannot be read.
            total: Of how many.
            what: Plural noun, e.g. `rows`.
            examples: The first complaints.

        Raises:
            UserError: It is more; the sentence has the counts and the examples.
        """
        if dropped > self.max_frac * total:
            raise UserError(
                f"{self.key}.max_unreadable_frac={self.max_frac:g}: {dropped:,} of {total:,} "
                f"{what} cannot be read ({'; '.join(examples)}); correct them, or allow a "
                "larger fraction"
            )


class ReadableGolds:
    """Passes the problems on whose gold the verifier reads.

    Args:
        verifier: Reads golds.
        ledger: Counts them: taken, and dropped as `unreadable_gold`.
        policy: What holds for a problem with an unreadable gold; a source's `unreadable`.

    Attributes:
        dropped: Ids of the problems that were dropped.
    """

    def __init__(
        self, verifier: Verifier, ledger: Ledger, policy: Callable[[Problem], Unreadable]
    ) -> None:
        self._verifier, self._ledger, self._policy = verifier, ledger, policy
        self.dropped: set[str] = set()

    def of(self, problems: Iterable[Problem], unit: str = "problems") -> Iterator[Problem]:
        """Yield the readable ones, none before some thousands of golds have been read.

        Args:
            problems: Those that came in.
            unit: What the ledger calls them.

        Raises:
            UserError: A gold cannot be read and its source refuses that, or too many cannot.
        """
        waiting = iter(problems)
        taken, dropped = 0, list[Problem]()
        while shard := list(islice(waiting, _SHARD_PROBLEMS)):
            taken += len(shard)
            unreadable = self._verifier.unreadable_golds(shard)
            policies = [self._policy(problem) for problem in unreadable]
            refused = [
                problem
                for problem, policy in zip(unreadable, policies, strict=True)
                if policy.action == "refuse"
            ]
            if refused:
                raise UserError(_refusal(refused, self._policy(refused[0]).key))
            dropped += unreadable
            origins = [problem.origin for problem in unreadable]
            self._ledger.take(unit, len(shard))
            self._ledger.drop(unit, UNREADABLE_GOLD, len(unreadable), origins=origins)
            for policy in dict.fromkeys(policies):
                policy.check(len(dropped), taken, "golds", [_shown(p) for p in dropped[:3]])
            ids = {problem.id for problem in unreadable}
            self.dropped |= ids
            yield from (problem for problem in shard if problem.id not in ids)
        if dropped:
            log.info(
                "%d of %d problems are dropped, as their golds cannot be read: %s.",
                len(dropped),
                taken,
                "; ".join(_shown(problem) for problem in dropped[:_SHOWN_ROWS]),
            )

    def again(self, problems: Iterable[Problem]) -> Iterator[Problem]:
        """Yield those of the same problems that `of` passed on, without reading golds again."""
        return (problem for problem in problems if problem.id not in self.dropped)


def _refusal(unreadable: Sequence[Problem], key: str) -> str:
    """One sentence about golds that cannot be read."""
    first, *others = unreadable
    rows = "".join(f"; {problem.origin}" for problem in others[:_SHOWN_ROWS])
    more = f" and {len(others) - _SHOWN_ROWS} more" if len(others) > _SHOWN_ROWS else ""
    return (
        f"{first.origin}{rows}{more}: '{first.checker}' can't read the gold "
        f"{first.gold[:100]!r}; correct these rows, or leave them out with {key}.unreadable=drop"
    )


def _shown(problem: Problem) -> str:
    return f"{problem.origin}: {problem.gold[:60]!r}"


@contextmanager
def errors_under(key: str) -> Iterator[None]:
    """Let errors of a source name its keys below `key`, where it is no root's `data`."""
    try:
        yield
    except UserError as error:
        raise UserError(_SOURCE_KEY.sub(lambda _: key, str(error))) from error
