"""The ledger of a stage: what came in, what went out, what was dropped and why.

A stage takes things of several units (rows of a dataset, problems, rollouts, documents, groups) and
drops some of them. Whatever drops a thing says so here, with a reason in snake_case, so that the
counts of `artifact.json`, the printed lines, the tracker and the report come from one place.

Nothing here imports torch. Counts and rows are plain JSON, so that a training state can hold them:
a resumed stage goes on with the counts of the moment that its state was saved.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reasoning_lab.types import UserError

DROPPED_ROWS = "dropped.jsonl"
WARNED_FRAC = 0.1
_EXAMPLES = 3


@dataclass
class Flow:
    """Things of one unit on their way through a stage.

    Attributes:
        taken: How many came in.
        dropped: How many did not go on, by reason.
        selected: Those reasons that are a selection which the user configured; they never warn.
        longest_tokens: Length of the longest thing that did not fit; None = everything fitted.
        examples: The first few dropped things by reason, as a message names them.
    """

    taken: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    selected: set[str] = field(default_factory=set)
    longest_tokens: int | None = None
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def passed(self) -> int:
        """How many went on."""
        return self.taken - self.dropped.total()

    @property
    def unplanned(self) -> int:
        """How many were dropped for a reason that is no configured selection."""
        return sum(n for reason, n in self.dropped.items() if reason not in self.selected)


class Ledger:
    """The flows of one stage, by unit, and the rows that were dropped."""

    def __init__(self) -> None:
        self.flows: dict[str, Flow] = {}
        self._rows: list[dict[str, Any]] = []

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
        selected: bool = False,
        tokens: int | None = None,
    ) -> None:
        """Count `count` things of `unit`, already taken, that do not go on.

        Args:
            unit: Plural noun, e.g. `documents`.
            reason: In snake_case, e.g. `too_long`.
            count: How many.
            origins: What each was, e.g. `train.jsonl:17`; kept as rows of `dropped.jsonl`.
            selected: True = a selection that the user configured dropped it, which never warns.
            tokens: Length of the longest of them, where they were too long.
        """
        if count == 0:
            return
        flow = self._flow(unit)
        flow.dropped[reason] += count
        if selected:
            flow.selected.add(reason)
        if tokens is not None:
            flow.longest_tokens = max(tokens, flow.longest_tokens or 0)
        examples = flow.examples.setdefault(reason, [])
        examples += list(origins)[: _EXAMPLES - len(examples)]
        self._rows += [{"unit": unit, "reason": reason, "origin": origin} for origin in origins]

    def merge(self, other: "Ledger") -> None:
        """Add all that `other` counted."""
        state = other.state_dict()
        for unit, part in other.flows.items():
            flow = self._flow(unit)
            flow.taken += part.taken
            flow.dropped += part.dropped
            flow.selected |= part.selected
            if part.longest_tokens is not None:
                flow.longest_tokens = max(part.longest_tokens, flow.longest_tokens or 0)
            for reason, examples in part.examples.items():
                flow.examples[reason] = [*flow.examples.get(reason, []), *examples][:_EXAMPLES]
        self._rows += state["rows"]

    def as_json(self) -> dict[str, dict[str, Any]]:
        """The counts as `artifact.json` has them: by unit `in`, `out`, `dropped` by reason."""
        return {
            unit: {
                "in": flow.taken,
                "out": flow.passed,
                "dropped": dict(sorted(flow.dropped.items())),
                **({"longest_tokens": flow.longest_tokens} if flow.longest_tokens else {}),
            }
            for unit, flow in self.flows.items()
        }

    def metrics(self) -> dict[str, int]:
        """The counts as a tracker shows them: `dropped/<unit>/<reason>` and the like."""
        counts: dict[str, int] = {}
        for unit, flow in self.flows.items():
            counts |= {f"ledger/{unit}/in": flow.taken, f"ledger/{unit}/out": flow.passed}
            counts |= {f"dropped/{unit}/{reason}": n for reason, n in sorted(flow.dropped.items())}
        return counts

    def lines(self) -> list[str]:
        """One sentence a unit of which something was dropped."""
        return [_sentence(unit, flow) for unit, flow in self.flows.items() if flow.dropped]

    def warnings(self) -> list[str]:
        """One sentence for each unit of which more than a tenth was dropped unasked."""
        return [
            f"more than a tenth of the {unit} was dropped: {_sentence(unit, flow)}"
            for unit, flow in self.flows.items()
            if flow.unplanned > WARNED_FRAC * flow.taken
        ]

    def require_passed(self, unit: str, key: str, remedy: str) -> None:
        """Refuse to go on where things of `unit` came in and all of them were dropped.

        Raises:
            UserError: Nothing is left; the sentence has the counts, `key` and `remedy`.
        """
        flow = self._flow(unit)
        if flow.taken and flow.passed <= 0:
            raise UserError(f"{key}: nothing is left; {_sentence(unit, flow)}; {remedy}")

    def write_rows(self, folder: Path) -> None:
        """Write `dropped.jsonl`, one line a dropped thing with an origin, where there are any."""
        if self._rows:
            with (folder / DROPPED_ROWS).open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in self._rows)

    def state_dict(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        flows = {
            unit: {
                "taken": flow.taken,
                "dropped": dict(flow.dropped),
                "selected": sorted(flow.selected),
                "longest_tokens": flow.longest_tokens,
                "examples": {reason: list(some) for reason, some in flow.examples.items()},
            }
            for unit, flow in self.flows.items()
        }
        return {"flows": flows, "rows": [dict(row) for row in self._rows]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what `state_dict` described."""
        self.flows = {
            unit: Flow(
                taken=flow["taken"],
                dropped=Counter(flow["dropped"]),
                selected=set(flow["selected"]),
                longest_tokens=flow["longest_tokens"],
                examples={reason: list(some) for reason, some in flow["examples"].items()},
            )
            for unit, flow in state["flows"].items()
        }
        self._rows = [dict(row) for row in state["rows"]]

    def _flow(self, unit: str) -> Flow:
        return self.flows.setdefault(unit, Flow())


def _sentence(unit: str, flow: Flow) -> str:
    """E.g. `76 of 231 documents go on; dropped: 155 too long (the longest has 512 tokens)`."""
    reasons = ", ".join(
        f"{count:,} {reason.replace('_', ' ')}{_named(flow.examples.get(reason, ()))}"
        for reason, count in flow.dropped.most_common()
    )
    longest = f" (the longest has {flow.longest_tokens:,} tokens)" if flow.longest_tokens else ""
    return f"{flow.passed:,} of {flow.taken:,} {unit} go on; dropped: {reasons}{longest}"


def _named(examples: Iterable[str]) -> str:
    return f" [{', '.join(examples)}]" if examples else ""
