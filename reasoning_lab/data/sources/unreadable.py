"""What happens to golds and rows that cannot be read: they are refused, or dropped and counted.

A source decides the policy for its problems. A hub dataset, which the user cannot edit, drops
unreadable rows; a local file refuses them. `ReadableGoldFilter` applies the policy wherever
problems are drawn with a verifier.
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
_BLOCK_PROBLEMS = 4096
_SHOWN_ROWS = 9
_KEYS = (
    "test_frac|validation_frac|path|rows|splits|dataset|sources|weights|corrections|unreadable|"
    "max_unreadable_frac|taskset|options"
)
_SOURCE_KEY = re.compile(rf"\bdata(?=\.(?:{_KEYS})\b|: ')")


@dataclass(frozen=True, slots=True)
class UnreadablePolicy:
    """What happens to problems or rows that cannot be read.

    Attributes:
        action: `refuse`, or `drop` = leave them out and count them.
        max_frac: Largest fraction that may be dropped.
        key: The config key that holds `unreadable` and `max_unreadable_frac`.
    """

    action: str
    max_frac: float
    key: str

    def check(self, dropped: int, total: int, unit: str, examples: Sequence[str]) -> None:
        """Raise UserError, which repeats the `examples`, if more than `max_frac` was dropped.

        `unit` is a plural noun, e.g. `rows`.
        """
        if dropped > self.max_frac * total:
            raise UserError(
                f"{self.key}.max_unreadable_frac={self.max_frac:g}: {dropped:,} of {total:,} "
                f"{unit} cannot be read ({'; '.join(examples)}); correct them, or allow a "
                "larger fraction"
            )


class ReadableGoldFilter:
    """Passes on the problems whose gold the verifier can read.

    Args:
        verifier: Reads golds.
        ledger: Counts what is taken, by the `unit` of `filter`, and dropped as `unreadable_gold`.
        policy: A problem's policy for an unreadable gold; a source's `unreadable`.

    Attributes:
        dropped: Ids of the problems that were dropped.
    """

    def __init__(
        self, verifier: Verifier, ledger: Ledger, policy: Callable[[Problem], UnreadablePolicy]
    ) -> None:
        self._verifier, self._ledger, self._policy = verifier, ledger, policy
        self.dropped: set[str] = set()

    def filter(self, problems: Iterable[Problem], unit: str = "problems") -> Iterator[Problem]:
        """Yield the problems with readable golds, in blocks of some thousands.

        Raises:
            UserError: A gold cannot be read and its source refuses it, or too many cannot.
        """
        remaining = iter(problems)
        taken, dropped = 0, list[Problem]()
        while block := list(islice(remaining, _BLOCK_PROBLEMS)):
            taken += len(block)
            unreadable = self._verifier.unreadable_golds(block)
            policies = {problem.id: self._policy(problem) for problem in unreadable}
            refused = [problem for problem in unreadable if policies[problem.id].action == "refuse"]
            if refused:
                raise UserError(_refusal(refused, policies[refused[0].id].key))
            dropped += unreadable
            origins = [problem.origin for problem in unreadable]
            self._ledger.take(unit, len(block))
            self._ledger.drop(unit, UNREADABLE_GOLD, len(unreadable), origins=origins)
            for policy in dict.fromkeys(policies.values()):
                policy.check(len(dropped), taken, "golds", [_describe(p) for p in dropped[:3]])
            self.dropped |= policies.keys()
            yield from (problem for problem in block if problem.id not in policies)
        if dropped:
            log.info(
                "%d of %d problems are dropped because their golds cannot be read: %s.",
                len(dropped),
                taken,
                "; ".join(_describe(problem) for problem in dropped[:_SHOWN_ROWS]),
            )

    def without_dropped(self, problems: Iterable[Problem]) -> Iterator[Problem]:
        """Yield the problems that `filter` has passed, without reading their golds again."""
        return (problem for problem in problems if problem.id not in self.dropped)


def _refusal(unreadable: Sequence[Problem], key: str) -> str:
    first, *others = unreadable
    rows = "".join(f"; {problem.origin}" for problem in others[:_SHOWN_ROWS])
    more = f" and {len(others) - _SHOWN_ROWS} more" if len(others) > _SHOWN_ROWS else ""
    return (
        f"{first.origin}{rows}{more}: '{first.checker}' can't read the gold "
        f"{first.gold[:100]!r}; correct these rows, or leave them out with {key}.unreadable=drop"
    )


def _describe(problem: Problem) -> str:
    return f"{problem.origin}: {problem.gold[:60]!r}"


@contextmanager
def errors_under(key: str) -> Iterator[None]:
    """Rewrite `data` in the errors of a source to `key`, its place in the config."""
    try:
        yield
    except UserError as error:
        raise UserError(_SOURCE_KEY.sub(lambda _: key, str(error))) from error
