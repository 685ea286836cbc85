"""The data card of a corpus: a Hugging Face dataset card that describes the artifact.

`CorpusSummary` counts rollouts as they are written. It stores only the problems' ids, lengths and a
few examples. `data_card` turns it into the text of a README.md.
"""

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field

import numpy as np
import yaml

from reasoning_lab.data.curation.step import StepCount
from reasoning_lab.graph.ledger import TABLE_COLUMNS, Ledger
from reasoning_lab.types import Rollout, Verdict

_EXAMPLES = 3
_SHOWN_CHARACTERS = 1500
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_BACKTICKS = re.compile(r"`+")
# The hub's names of licences; any other licence is `other` with a name of its own.
_LICENCES = frozenset({"apache-2.0", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "mit", "odc-by"})
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)


@dataclass
class CorpusSummary:
    """Counts of the rollouts that were added.

    Attributes:
        verdicts: All rollouts.
        judged: Those that a judge decided.
        accepted: Accepted rollouts by domain, family and level.
        problems: Distinct problems by domain, family and level.
        examples: Accepted rollouts of the first few distinct problems.
        lengths: Lengths in characters of the accepted (True) and the rejected (False) completions.
    """

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    judged: Counter[Verdict] = field(default_factory=Counter)
    authors: Counter[str] = field(default_factory=Counter)
    accepted: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    problems: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    truncated: int = 0
    examples: list[Rollout] = field(default_factory=list)
    lengths: "dict[bool, array[int]]" = field(
        default_factory=lambda: {True: array("q"), False: array("q")}
    )
    _problem_ids: set[int] = field(default_factory=set)

    def add(self, rollouts: Iterable[Rollout]) -> None:
        """Count the rollouts and collect the first few examples."""
        for rollout in rollouts:
            problem = rollout.problem
            group = (problem.domain, problem.family, problem.level)
            self.verdicts[rollout.verdict] += 1
            self.judged[rollout.verdict] += rollout.judge is not None
            self.truncated += rollout.completion.truncated
            self.authors[rollout.author] += 1
            self.lengths[rollout.correct].append(len(rollout.completion.text))
            self.accepted[group] += rollout.correct
            problem_id = int(problem.id, 16)
            if problem_id not in self._problem_ids:
                self._problem_ids.add(problem_id)
                self.problems[group] += 1
            if rollout.correct and len(self.examples) < _EXAMPLES:
                example_ids = {example.problem.id for example in self.examples}
                self.examples += [] if problem.id in example_ids else [rollout]


def data_card(
    name: str,
    provenance: Mapping[str, str],
    summary: CorpusSummary,
    ledger: Ledger,
    counts: Sequence[StepCount] = (),
) -> str:
    """The text of the card.

    Args:
        name: The stage's name, for the title.
        provenance: `name`, `revision` and `licence` of the problems' source.
        summary: Counts of the accepted and the rejected rollouts.
        ledger: What is not in the corpus, by reason.
        counts: Of each step of curation; empty for a corpus that was not curated.
    """
    accepted = summary.verdicts[Verdict.CORRECT]
    sections = [
        f"---\n{yaml.safe_dump(_header(name, provenance, accepted), sort_keys=False)}---",
        f"# {name}: verified reasoning rollouts",
        _sources(provenance, summary),
        f"## Counts\n\n{_counts(summary)}",
        f"## Lengths of completions, in characters\n\n{_lengths(summary)}",
    ]
    if cells := ledger.cells():
        sections.append(f"## What was dropped\n\n{markdown_table(TABLE_COLUMNS, cells)}")
    if counts:
        sections.append(f"## Curation\n\n{_curation(counts)}")
    sections += ["## Examples", *(_example(rollout) for rollout in summary.examples)]
    return "\n\n".join(sections) + "\n"


def _header(name: str, provenance: Mapping[str, str], accepted: int) -> dict[str, object]:
    licence = provenance["licence"].casefold()
    is_known = licence in _LICENCES
    custom_name = (
        {} if is_known else {"license_name": re.sub(r"[^a-z0-9.]+", "-", licence).strip("-")}
    )
    files = [
        {"split": split, "path": f"{split}.parquet"}
        for split in ("accepted", "rejected", "validation")
    ]
    return {
        "license": licence if is_known else "other",
        **custom_name,
        "pretty_name": f"{name} ({provenance['name']})",
        "task_categories": ["text-generation"],
        "tags": ["reasoning", "chain-of-thought"],
        "size_categories": [next((size for most, size in _SIZES if accepted < most), "n>10M")],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def _sources(provenance: Mapping[str, str], summary: CorpusSummary) -> str:
    authors = ", ".join(f"{author} ({n:,})" for author, n in sorted(summary.authors.items()))
    return "\n".join(
        [
            f"- Problems: {provenance['name']}",
            f"- Revision: {provenance['revision']}",
            f"- Licence of the problems: {provenance['licence']}",
            f"- Completions (rollouts) by: {authors}",
        ]
    )


def _counts(summary: CorpusSummary) -> str:
    verdicts = [
        (str(verdict), f"{summary.verdicts[verdict]:,}", f"{summary.judged[verdict]:,}")
        for verdict in Verdict
    ]
    groups = [
        (*group[:2], str(group[2]), f"{n:,}", f"{summary.accepted[group]:,}")
        for group, n in sorted(summary.problems.items())
    ]
    total = ("all", "", "", f"{summary.problems.total():,}", f"{summary.accepted.total():,}")
    return "\n\n".join(
        [
            markdown_table(("verdict", "rollouts", "of these a judge's"), verdicts),
            f"Truncated, at a limit or before the end of the thought: {summary.truncated:,}.",
            markdown_table(
                ("domain", "family", "level", "problems", "accepted rollouts"), [*groups, total]
            ),
        ]
    )


def _lengths(summary: CorpusSummary) -> str:
    headers = ("", "least", *(f"{q:.0%}" for q in _QUANTILES[1:-1]), "most")
    rows = [
        (label, *(f"{value:,.0f}" for value in np.quantile(summary.lengths[correct], _QUANTILES)))
        for label, correct in (("accepted", True), ("rejected", False))
        if summary.lengths[correct]
    ]
    return markdown_table(headers, rows)


def _curation(counts: Sequence[StepCount]) -> str:
    headers = ("step", "rollouts in", "out", "problems in", "out")
    return markdown_table(
        headers,
        [(name, *(f"{n:,}" for n in numbers)) for name, *numbers in map(astuple, counts)],
    )


def _example(rollout: Rollout) -> str:
    problem = rollout.problem
    return (
        f"{_cell(problem.family)}, level {problem.level}; gold:\n\n{fenced_block(problem.gold)}\n\n"
        f"{fenced_block(problem.transcript)}\n\n{fenced_block(rollout.completion.text)}"
    )


def fenced_block(text: str, max_characters: int | None = _SHOWN_CHARACTERS) -> str:
    """A fenced block with a fence longer than any run of backticks in the text.

    A text longer than `max_characters` is cut; None = no limit.
    """
    if max_characters is not None and len(text) > max_characters:
        text = f"{text[:max_characters]} […]"
    longest = max((len(run) for run in _BACKTICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the first column is aligned left, the others right."""
    lines = [headers, [":--", *["--:"] * (len(headers) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
