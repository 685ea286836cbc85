"""Where problems come from: the protocol that all sources keep, and local JSONL files."""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

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

    def content(self) -> str:
        """What decides the problems beyond the source's options, e.g. a file's hash."""
        ...

    def about(self) -> Mapping[str, str]:
        """For a data card: `name`, `revision` and `licence` of what the problems come from."""
        ...


def split_of(problem_id: str, test_frac: float, validation_frac: float) -> Split:
    """The split that a prompt belongs to, from its id (a hash, so uniform)."""
    position = int(problem_id[:8], 16) / 16**8
    if position < test_frac:
        return Split.TEST
    return Split.VALIDATION if position < test_frac + validation_frac else Split.TRAIN


def check_fractions(test_frac: float, validation_frac: float) -> None:
    """Raise UserError unless the two leave something to train on."""
    if min(test_frac, validation_frac) < 0 or test_frac + validation_frac >= 1:
        raise UserError(
            f"data: test_frac={test_frac} and validation_frac={validation_frac} must be at "
            "least 0 and sum to less than 1"
        )


class JsonlSource:
    """Problems from a file with one JSON object a line: `prompt`, `gold`, maybe `level`.

    Args:
        path: The file.
        checker: Which rule compares answers, e.g. `math`.
        family: The name under which tables group these problems.
        test_frac: Fraction of all prompts that is held out for benchmarks.
        validation_frac: Fraction that early stopping and tuning may look at.

    Raises:
        UserError: For a missing file, or a malformed row, named by its line.
    """

    def __init__(
        self, path: str, checker: str, family: str, test_frac: float, validation_frac: float
    ) -> None:
        check_fractions(test_frac, validation_frac)
        self._path = Path(path)
        self._problems = [
            self._problem(line, number, checker, family)
            for number, line in enumerate(self._lines(), start=1)
            if line.strip()
        ]
        self._fractions = (test_frac, validation_frac)

    def content(self) -> str:
        return hashlib.sha256(self._path.read_bytes()).hexdigest()

    def about(self) -> Mapping[str, str]:
        return {"name": self._path.name, "revision": self.content(), "licence": "not stated"}

    def problems(
        self, split: Split, levels: Sequence[int], count: int, seed: int
    ) -> Iterator[Problem]:
        distinct = {problem.id: problem for problem in self._problems}
        matching = [
            problem
            for problem in distinct.values()
            if problem.level in levels and split_of(problem.id, *self._fractions) is split
        ]
        if len(matching) < count:
            raise UserError(
                f"data.path: '{self._path}' has {len(matching)} distinct {split} prompts at "
                f"levels {list(levels)}, {count} asked for; ask for fewer or add rows"
            )
        random.Random(seed).shuffle(matching)
        yield from matching[:count]

    def _lines(self) -> list[str]:
        try:
            # Not splitlines: a JSON string may hold U+2028 and its like as they are.
            return self._path.read_text(encoding="utf-8").split("\n")
        except FileNotFoundError as error:
            raise UserError(
                f"data.path: there is no file '{self._path}'; check the path"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"data.path: cannot read '{self._path}' ({error}); give a UTF-8 JSONL file"
            ) from error

    def _problem(self, line: str, number: int, checker: str, family: str) -> Problem:
        where = f"{self._path}, line {number}"
        try:
            row: Any = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: not JSON ({error.msg}); write one object a line") from error
        if not isinstance(row, dict):
            raise UserError(f"{where}: a {type(row).__name__}, not an object; write one a line")
        for key in ("prompt", "gold"):
            if not isinstance(row.get(key), str) or not row[key].strip():
                raise UserError(f"{where}: '{key}' is {row.get(key)!r}; give a non-empty string")
        level = row.get("level", 1)
        if not isinstance(level, int) or level < 1:
            raise UserError(f"{where}: 'level' is {level!r}; give an integer of at least 1")
        return Problem(row["prompt"].strip(), row["gold"], checker, family, level)
