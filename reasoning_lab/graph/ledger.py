"""The ledger of a stage: what came in, what went out, what was dropped and why.

A stage takes things of several units (rows of a dataset, problems, rollouts, documents, groups) and
drops some of them. Whatever drops a thing says so here, with a reason in snake_case, so that the
counts of `artifact.json`, the printed lines, the tracker and the report come from one place.

Nothing here imports torch. Counts and rows are plain JSON, so that a training state can hold them:
a resumed stage goes on with the counts of the moment that its state was saved.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reasoning_lab.types import UserError

DROPPED_ROWS = "dropped.jsonl"
TABLE_COLUMNS = ("unit", "in", "out", "dropped")
WARNED_FRAC = 0.1
_EXAMPLES = 3


@dataclass
class Flow:
    """Things of one unit on their way through a stage.

    Attributes:
        taken: How many came in.
        dropped: How many did not go on, by reason.
        selected: Those reasons that never warn, see `Ledger.drop`.
        longest_tokens: Length of the longest thing that did not fit; None = everything fitted.
        longest: What that thing was; empty = not known.
        examples: The first few dropped things by reason, as a message names them.
    """

    taken: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    selected: set[str] = field(default_factory=set)
    longest_tokens: int | None = None
    longest: str = ""
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def passed(self) -> int:
        """How many went on."""
        return self.taken - self.dropped.total()

    @property
    def unplanned(self) -> int:
        """How many were dropped for a reason that is no configured selection."""
        return sum(n for reason, n in self.dropped.items() if reason not in self.selected)

    @property
    def eligible(self) -> int:
        """How many came in and were not dropped by a configured selection."""
        return self.taken - self.dropped.total() + self.unplanned

    def add(self, other: "Flow") -> None:
        """Add all that `other` counted."""
        self.taken += other.taken
        self.dropped += other.dropped
        self.selected |= other.selected
        self.meet(other.longest_tokens, other.longest)
        for reason, examples in other.examples.items():
            self.examples[reason] = [*self.examples.get(reason, []), *examples][:_EXAMPLES]

    def meet(self, tokens: int | None, name: str) -> None:
        """Remember the thing `name` of so many tokens, if it is the longest so far."""
        if tokens is not None and tokens > (self.longest_tokens or 0):
            self.longest_tokens, self.longest = tokens, name


class Ledger:
    """The flows of one stage, by unit, and the rows that were dropped."""

    def __init__(self) -> None:
        self.flows: dict[str, Flow] = {}
        self._rows: list[dict[str, Any]] = []

    @classmethod
    def of(cls, counts: Mapping[str, Mapping[str, Any]]) -> "Ledger":
        """The ledger whose `as_json` is `counts`; its rows are in `dropped.jsonl`."""
        ledger = cls()
        ledger.load_state_dict({"flows": counts, "rows": []})
        return ledger

    def take(self, unit: str, count: int = 1) -> None:
        """Count `count` things of `unit` that came in."""
        self._flow(unit).taken += count

    def drop(
        self,
        unit: str,
        reason: str,
        count: int = 1,
        *,
        origins: Sequence[str] = (),
        rows: Iterable[Mapping[str, Any]] = (),
        selected: bool = False,
        tokens: int | None = None,
        longest: str = "",
    ) -> None:
        """Count `count` things of `unit`, already taken, that do not go on.

        Args:
            unit: Plural noun in snake_case, e.g. `documents`.
            reason: In snake_case, e.g. `too_long`.
            count: How many.
            origins: What each was, e.g. `train.jsonl:17`; sentences name the first few, and each
                is a row of `dropped.jsonl`.
            rows: The same in full, for `dropped.jsonl` alone.
            selected: True = it never warns: a selection that the user configured dropped it, or
                another unit's count says the same.
            tokens: Length of the longest of them, where they were too long.
            longest: What that one was.
        """
        if count == 0:
            return
        flow = self._flow(unit)
        flow.dropped[reason] += count
        if selected:
            flow.selected.add(reason)
        flow.meet(tokens, longest)
        examples = flow.examples.setdefault(reason, [])
        examples += list(origins)[: _EXAMPLES - len(examples)]
        contents = [*({"origin": origin} for origin in origins), *rows]
        self._rows += [{"unit": unit, "reason": reason, **content} for content in contents]

    def merge(self, other: "Ledger") -> None:
        """Add all that `other` counted."""
        for unit, flow in other.flows.items():
            self._flow(unit).add(flow)
        self._rows += [dict(row) for row in other._rows]

    def as_json(self) -> dict[str, dict[str, Any]]:
        """The counts as `artifact.json` has them: by unit `in`, `out`, `dropped` by reason.

        Where there are such: `selected`, the reasons that never warn; `longest_tokens` and
        `longest`; `examples` by reason.
        """
        counts = {}
        for unit, flow in self.flows.items():
            sparse = {
                "selected": sorted(flow.selected),
                "longest_tokens": flow.longest_tokens,
                "longest": flow.longest,
                "examples": {reason: list(some) for reason, some in flow.examples.items() if some},
            }
            counts[unit] = {
                "in": flow.taken,
                "out": flow.passed,
                "dropped": dict(sorted(flow.dropped.items())),
                **{key: value for key, value in sparse.items() if value},
            }
        return counts

    def metrics(self) -> dict[str, int]:
        """The counts as a tracker shows them: `dropped/<unit>/<reason>` and the like."""
        counts: dict[str, int] = {}
        for unit, flow in self.flows.items():
            counts |= {f"ledger/{unit}/in": flow.taken, f"ledger/{unit}/out": flow.passed}
            counts |= {f"dropped/{unit}/{reason}": n for reason, n in sorted(flow.dropped.items())}
        return counts

    def cells(self) -> list[list[str]]:
        """Rows of a table with `TABLE_COLUMNS`, one a unit of which something came in."""
        return [
            [
                _words(unit),
                f"{flow.taken:,}",
                f"{flow.passed:,}",
                _reasons(flow, named=False) + _longest(flow),
            ]
            for unit, flow in self.flows.items()
            if flow.taken
        ]

    def lines(self) -> list[str]:
        """One sentence a unit of which something was dropped."""
        return [_sentence(unit, flow) for unit, flow in self.flows.items() if flow.dropped]

    def complete(self) -> list[str]:
        """The count of each unit of which something came in and nothing was dropped."""
        return [
            f"{flow.taken:,} {_words(unit)}"
            for unit, flow in self.flows.items()
            if flow.taken and not flow.dropped
        ]

    def warnings(self) -> list[str]:
        """One sentence for each unit of which more than a tenth was dropped unasked.

        What a configured selection leaves out is not part of the whole.
        """
        return [
            f"more than a tenth of the {_words(unit)} was dropped: {flow.unplanned:,} of "
            f"{flow.eligible:,} ({flow.unplanned / flow.eligible:.0%}), "
            f"{_reasons(flow, without=flow.selected)}"
            for unit, flow in self.flows.items()
            if flow.eligible > 0 and flow.unplanned > WARNED_FRAC * flow.eligible
        ]

    def require_passed(self, unit: str, key: str, remedy: str) -> None:
        """Refuse to go on where things of `unit` came in and all of them were dropped.

        Raises:
            UserError: Nothing is left; the sentence has the counts, `key` and `remedy`.
        """
        flow = self._flow(unit)
        if flow.taken and flow.passed <= 0:
            raise UserError(f"{key}: nothing is left; {_sentence(unit, flow)}; {remedy}")

    def reasons(self, unit: str) -> str:
        """Why things of `unit` were dropped, with counts, e.g. `3 too long, 1 wrong`."""
        return _reasons(self._flow(unit))

    def write_rows(self, folder: Path) -> None:
        """Write `dropped.jsonl`, one line a dropped thing with an origin, where there are any."""
        if self._rows:
            with (folder / DROPPED_ROWS).open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in self._rows)

    def state_dict(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        return {"flows": self.as_json(), "rows": [dict(row) for row in self._rows]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what `state_dict` described."""
        self.flows = {
            unit: Flow(
                taken=flow["in"],
                dropped=Counter(flow["dropped"]),
                selected=set(flow.get("selected", ())),
                longest_tokens=flow.get("longest_tokens"),
                longest=flow.get("longest", ""),
                examples={reason: list(some) for reason, some in flow.get("examples", {}).items()},
            )
            for unit, flow in state["flows"].items()
        }
        self._rows = [dict(row) for row in state["rows"]]

    def _flow(self, unit: str) -> Flow:
        return self.flows.setdefault(unit, Flow())


def _sentence(unit: str, flow: Flow) -> str:
    """E.g. `76 of 231 documents go on; dropped: 155 too long (the longest has 512 tokens)`."""
    longest = _longest(flow, f": {flow.longest}" if flow.longest else "")
    passed = f"{flow.passed:,} of {flow.taken:,} {_words(unit)}"
    return f"{passed} go on; dropped: {_reasons(flow)}{longest}"


def _reasons(flow: Flow, without: Collection[str] = (), named: bool = True) -> str:
    """E.g. `155 too long [train.jsonl:7], 6 harder subset`, the most frequent first."""
    examples = flow.examples if named else {}
    return ", ".join(
        f"{count:,} {_words(reason)}"
        + (f" [{', '.join(examples[reason])}]" if examples.get(reason) else "")
        for reason, count in flow.dropped.most_common()
        if reason not in without
    )


def _longest(flow: Flow, name: str = "") -> str:
    tokens = flow.longest_tokens
    return "" if tokens is None else f" (the longest has {tokens:,} tokens{name})"


def _words(name: str) -> str:
    return name.replace("_", " ")
